//! Nodes, hosts, disks and sockets in one thread from one seed, and the checkers.
