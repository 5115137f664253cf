"""What is looked at after every step. Cheap: nothing here forks."""
