//! Chat templates: how a model wants a conversation written.
//!
//! A model's own template is Jinja, in its folder's `chat_template.jinja` or `tokenizer_config.json`. It is run as the
//! transformers library runs it: blocks trimmed, Python's methods of strings and maps, `raise_exception`,
//! `strftime_now` (in UTC), and the special tokens as variables.

use super::{DataError, Tokenizer, files};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// The template of models that have none: `### User:`, the message, an empty line, and so on.
const PLAIN: &str = "{{ bos_token }}{% for message in messages %}### {{ message.role | capitalize }}:\n\
    {{ message.content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}\
    {% if add_generation_prompt %}### Assistant:{{ '\\n' }}{% endif %}";
/// What the template is called in errors.
const NAME: &str = "chat template";

/// How a model wants a conversation written.
pub struct Template {
    environment: Environment<'static>,
    special: BTreeMap<String, String>,
}

impl Template {
    /// The template of the backbone in `folder`, or the plain one where it has none.
    ///
    /// # Errors
    /// A template that is damaged, or several with none called default.
    pub fn open(folder: &Path, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let path = folder.join("chat_template.jinja");
        if let Some(bytes) = files::optional(&path)? {
            let source =
                String::from_utf8(bytes).map_err(|error| DataError::file(&path, format!("is not text ({error})")))?;
            return Self::new(&source, tokenizer.special()).map_err(|problem| DataError::file(&path, problem));
        }
        let path = folder.join("tokenizer_config.json");
        let settings = files::json(&path)?.unwrap_or_default();
        let source =
            match &settings["chat_template"] {
                serde_json::Value::String(source) => Some(source.as_str()),
                serde_json::Value::Array(named) => Some(default_of(named).ok_or_else(|| {
                    DataError::file(&path, "has several chat templates, but none with the name default")
                })?),
                _ => None,
            };
        Self::new(source.unwrap_or(PLAIN), tokenizer.special()).map_err(|problem| DataError::file(&path, problem))
    }

    fn new(source: &str, special: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format, seconds_now()));
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| format!("has a chat template that is not understood ({error})"))?;
        // Templates write these wherever they belong, be there one or not.
        let absent = ["bos_token", "eos_token"].map(|name| (name.to_string(), String::new()));
        let special = absent.into_iter().chain(special.clone()).collect();
        Ok(Self { environment, special })
    }

    /// A conversation as the model wants it; with `answer` it ends where the assistant is to speak next. A message has
    /// `role` and `content`.
    ///
    /// # Errors
    /// A conversation that the template refuses.
    pub fn render<M: Serialize>(&self, messages: &[M], answer: bool) -> Result<String, String> {
        let special = Value::from_serialize(&self.special);
        let rendered = self.environment.get_template(NAME).and_then(|template| {
            template.render(context! { messages => messages, add_generation_prompt => answer, ..special })
        });
        rendered.map_err(|error| format!("the chat template refuses it ({error})"))
    }
}

/// The template called default, or the only one there is.
fn default_of(named: &[serde_json::Value]) -> Option<&str> {
    let default = named.iter().find(|template| template["name"] == "default");
    let only = named.first().filter(|_| named.len() == 1);
    default.or(only)?["template"].as_str()
}

/// Some templates mark what the assistant says by tags that only the transformers library knows: they become tags
/// that do nothing, with the same trimming of space around them.
fn without_generation_tags(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        let Some((tag, after)) = tag.split_once("%}") else { break };
        let word = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let tag = match word {
            "generation" => tag.replace(word, "if true"),
            "endgeneration" => tag.replace(word, "endif"),
            _ => tag.into(),
        };
        plain.extend([before, "{%", &tag, "%}"]);
        rest = after;
    }
    plain + rest
}

/// JSON as Python writes it: nothing escaped for HTML, a space after each comma and colon.
fn to_json(value: Value, arguments: minijinja::value::Kwargs) -> Result<Value, Error> {
    let refuse = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let indent: Option<usize> = arguments.get("indent")?;
    let mut bytes = Vec::new();
    match indent {
        Some(indent) => {
            let indent = " ".repeat(indent.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).map_err(refuse)?;
        }
        None => {
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced)).map_err(refuse)?;
        }
    }
    Ok(Value::from_safe_string(String::from_utf8_lossy(&bytes).into_owned()))
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, to: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, to: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, to: &mut W) -> std::io::Result<()> {
        to.write_all(b": ")
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The directives of C's strftime that occur in templates; others stay as they are written.
fn strftime(format: &str, seconds: u64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let month_name = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    let day_name = DAYS.get((days % 7) as usize).copied().unwrap_or_default();
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('Y') => text += &year.to_string(),
            Some('y') => text += &format!("{:02}", year % 100),
            Some('m') => text += &format!("{month:02}"),
            Some('B') => text += month_name,
            Some('b') => text += month_name.get(..3).unwrap_or_default(),
            Some('d') => text += &format!("{day:02}"),
            Some('A') => text += day_name,
            Some('a') => text += day_name.get(..3).unwrap_or_default(),
            Some('H') => text += &format!("{:02}", second / 3_600),
            Some('M') => text += &format!("{:02}", second / 60 % 60),
            Some('S') => text += &format!("{:02}", second % 60),
            Some('%') => text.push('%'),
            other => text.extend(['%'].into_iter().chain(other)),
        }
    }
    text
}

/// Year, month and day so many days after the first of January 1970 (Gregorian).
fn date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // Whole cycles of 400 years first, so that no count of days makes the loop long.
    let (mut year, mut left) = (1970 + days / 146_097 * 400, days % 146_097);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::{super::tokenizer::tests::characters, *};
    use std::fs;

    /// What the transformers library 5.23 makes of three templates and two conversations.
    #[derive(serde::Deserialize)]
    struct Reference {
        templates: BTreeMap<String, String>,
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        template: String,
        messages: Vec<serde_json::Value>,
        answer: bool,
        text: String,
    }

    #[test]
    fn conversations_are_written_as_by_the_reference() {
        let reference: Reference = serde_json::from_str(include_str!("fixtures/chat.json")).unwrap();
        let special = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, token)| (name.into(), token.into()));
        for case in reference.cases {
            let template = Template::new(&reference.templates[&case.template], &special.clone().into()).unwrap();
            assert_eq!(template.render(&case.messages, case.answer).unwrap(), case.text, "{}", case.template);
        }
        let template = Template::new(&reference.templates["brackets"], &BTreeMap::new()).unwrap();
        let refusal = template.render(&[serde_json::json!({"role": "assistant", "content": "x"})], false).unwrap_err();
        assert!(refusal.contains("roles must alternate"), "{refusal}");
    }

    #[test]
    fn a_template_is_found_in_the_folder_or_is_the_plain_one() {
        let (tokenizer, folder) = characters();
        let messages = [serde_json::json!({"role": "user", "content": "Hi"})];
        let rendered =
            || Template::open(folder.path(), &tokenizer).map(|template| template.render(&messages, true).unwrap());
        let set = |template: serde_json::Value| {
            let settings = serde_json::json!({ "chat_template": template }).to_string();
            fs::write(folder.path().join("tokenizer_config.json"), settings).unwrap();
        };
        assert_eq!(rendered().unwrap(), "<s>### User:\nHi\n\n### Assistant:\n");
        set("{{ messages[0].content }}".into());
        assert_eq!(rendered().unwrap(), "Hi");
        set(serde_json::json!([{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]));
        assert_eq!(rendered().unwrap(), "d");
        set(serde_json::json!([{"name": "tools", "template": "t"}, {"name": "other", "template": "d"}]));
        assert!(rendered().unwrap_err().to_string().contains("none with the name default"));
        set("{% for %}".into());
        assert!(rendered().unwrap_err().to_string().contains("is not understood"));
        fs::write(folder.path().join("chat_template.jinja"), "{% generation %}j{% endgeneration %}").unwrap();
        assert_eq!(rendered().unwrap(), "j");
    }

    #[test]
    fn dates_are_written_as_by_c() {
        let format = "%d %b %Y, %A %a, %B %m %y %H:%M:%S 100%% %Q";
        // 29 February 2024, 12:34:56, and the first of March 2100, which is no leap year.
        let told = "29 Feb 2024, Thursday Thu, February 02 24 12:34:56 100% %Q";
        assert_eq!(strftime(format, 1_709_210_096), told);
        assert_eq!(strftime("%Y-%m-%d %A", 4_107_542_400), "2100-03-01 Monday");
        assert_eq!(strftime("%Y-%m-%d", 0), "1970-01-01");
    }
}
