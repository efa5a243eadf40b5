//! (header comes with the first file)
