//! The gRPC services and the metrics endpoint of a node.
