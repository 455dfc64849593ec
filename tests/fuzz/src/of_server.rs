//! The parsers of `server`.

use server::config::Options;
use server::config::file::ConfigFile;
use server::metrics::{Parsed, parse_request};

/// A configuration file: refused in one line, or a configuration that is written and read back the same.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match ConfigFile::parse(text, "server.toml") {
        Err(error) => assert_is_one_line(&error.to_string()),
        Ok(file) => {
            let again = toml::to_string(&file.options).expect("options are TOML");
            let again: Options = toml::from_str(&again).unwrap_or_else(|error| panic!("{again}: {error}"));
            assert_eq!(again, file.options);
            if let Err(contradiction) = file.options.check() {
                assert_is_one_line(&contradiction.to_string());
            }
        }
    }
}

/// A request to the metrics endpoint: what it is does not depend on the pieces in which it comes.
pub fn request(bytes: &[u8]) {
    let whole = parse_request(bytes);
    let first =
        (1..=bytes.len()).map(|end| parse_request(&bytes[..end])).find(|found| *found != Parsed::Incomplete);
    assert_eq!(whole, first.unwrap_or(Parsed::Incomplete));
}

fn assert_is_one_line(message: &str) {
    assert!(!message.chars().any(char::is_control), "{message:?}");
}
