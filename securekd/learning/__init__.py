"""How models are trained, distilled and asked."""
