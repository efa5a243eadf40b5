//! Gives equal hashes the same bytes, whatever their form.

use super::HashRef;

/// The fields in the order of their names, each with its value and expiry.
pub fn canonical(hash: HashRef<'_>, out: &mut Vec<u8>) {
    let field = |field: super::Field<'_>| (field.name.to_vec(), field.value.item().to_vec(), field.expiry);
    let mut fields: Vec<_> = hash.iter(0).map(field).collect();
    fields.sort_unstable();
    for (name, value, expiry) in fields {
        for text in [name, value] {
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(&text);
        }
        out.extend_from_slice(&expiry.unwrap_or(0).to_le_bytes());
    }
}
