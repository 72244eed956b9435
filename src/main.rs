//! The program: arguments in, daemon or command line out.

fn main() {}
