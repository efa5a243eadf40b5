//! Writes JSON: objects whose fields come in a fixed order.

/// An object that is being written.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Object {
        Object("{".to_owned())
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quoted(name));
        self.0.push(':');
    }

    /// A field whose value is JSON already.
    pub(super) fn raw(mut self, name: &str, value: &str) -> Object {
        self.name(name);
        self.0.push_str(value);
        self
    }

    pub(super) fn text(self, name: &str, value: &str) -> Object {
        self.raw(name, &quoted(value))
    }

    pub(super) fn number(self, name: &str, value: u64) -> Object {
        self.raw(name, &value.to_string())
    }

    pub(super) fn maybe(self, name: &str, value: Option<u64>) -> Object {
        self.raw(name, &value.map_or("null".to_owned(), |value| value.to_string()))
    }

    pub(super) fn maybe_text(self, name: &str, value: Option<&str>) -> Object {
        self.raw(name, &value.map_or("null".to_owned(), quoted))
    }

    pub(super) fn flag(self, name: &str, value: bool) -> Object {
        self.raw(name, if value { "true" } else { "false" })
    }

    pub(super) fn list(self, name: &str, items: impl Iterator<Item = String>) -> Object {
        let items: Vec<String> = items.collect();
        self.raw(name, &format!("[{}]", items.join(",")))
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_written_in_order_and_quoted() {
        let inner = Object::new().number("n", 1).end();
        let text = Object::new()
            .text("te\"xt", "a\\b\n\u{1}é")
            .maybe("none", None)
            .maybe_text("nothing", None)
            .flag("yes", true)
            .list("items", [inner, "2".to_owned()].into_iter())
            .end();
        assert_eq!(text, r#"{"te\"xt":"a\\b\n\u0001é","none":null,"nothing":null,"yes":true,"items":[{"n":1},2]}"#);
    }
}
