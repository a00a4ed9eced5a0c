"""What `doctor` does: facts about an installation, and what they mean."""
