//! The admin API and the command line.
