//! Black-box tests: real initiators in virtual machines against the real daemon.
