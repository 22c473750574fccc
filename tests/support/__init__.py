"""What several rooms' tests share: import as `support`."""
