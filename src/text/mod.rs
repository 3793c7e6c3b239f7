//! Floor 0, text: the fields of a JSON object, and hexadecimal digits.

pub mod fields;
pub mod hex;
