"""What benches/channels is made of: servers with channels, how clients of each subscribe, and the rows that are measured."""
