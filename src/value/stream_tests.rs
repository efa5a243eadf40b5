//! Tests of streams as values.
