"""What is wrong with data, recipe or machine, found out before anything runs."""
