//! The flag file: anything turns maintenance on, and what is understood of it is written so that it is read again.

use flagstone::policy::maintenance::Flag;

/// Any bytes are a flag; its text is the same flag, without a complaint.
pub fn check(bytes: &[u8]) {
    let (flag, warning) = Flag::parse(bytes);
    if let Some(warning) = &warning {
        assert!(!warning.0.is_empty());
    }
    assert!(!flag.auto_end || flag.until.is_some(), "nothing may remove it at no time");
    let texts = [&flag.reason, &flag.by].into_iter().flatten();
    assert!(texts.clone().all(|text| !text.chars().any(char::is_control)), "{flag:?}");
    let text = flag.to_toml();
    let (again, warning) = Flag::parse(text.as_bytes());
    assert_eq!(again, flag, "{text}");
    assert_eq!(warning, None, "{text}");
}
