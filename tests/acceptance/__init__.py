"""What users see: whole programs in processes of their own, from the command line to the containers."""
