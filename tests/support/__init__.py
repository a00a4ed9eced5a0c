"""What tests share: models of their own, and ways to run the real program."""
