//! NVMe-oF subsystems, controllers, discovery, and the TCP binding. Sans-IO.
