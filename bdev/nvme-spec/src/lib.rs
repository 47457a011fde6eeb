//! NVMe structures as bytes, no behaviour; shared by the driver and the target.
