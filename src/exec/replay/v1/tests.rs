//! Tests of the frozen version 1.
