"""What runs in and around containers, without the processes."""
