"""What fault runs on local processes are made of: programs that start at once, and that die where they are told to."""
