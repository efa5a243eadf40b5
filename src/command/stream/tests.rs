//! Tests of the commands for streams.
