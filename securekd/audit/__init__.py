"""Audits of deployed models."""
