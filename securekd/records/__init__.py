"""What is written of a run or an audit, and read again."""
