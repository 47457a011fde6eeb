//! The gRPC schema and its conversion into the plain types of api.
