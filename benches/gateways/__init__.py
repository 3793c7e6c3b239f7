"""The parts of benches/gateway: the servers, their clients, what is measured, and the table of the results."""
