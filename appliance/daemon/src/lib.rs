//! holdfastd: parse configuration, probe hardware, start reactors and the control plane.
