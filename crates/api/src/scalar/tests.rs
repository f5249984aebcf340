use super::*;

fn round_trip<T: FromStr + fmt::Display>(texts: &[&str]) {
    for text in texts {
        assert_eq!(text.parse::<T>().map(|value| value.to_string()).ok().as_deref(), Some(*text));
    }
}

fn refuses<T: FromStr>(texts: &[&str]) {
    for text in texts {
        assert!(text.parse::<T>().is_err(), "{text} was taken");
    }
}

#[test]
fn scalars_print_as_they_are_written() {
    round_trip::<Duration>(&["1500ms", "5s", "5m", "2h", "1d", "7us"]);
    round_trip::<Size>(&["512MiB", "1GB", "1GiB", "4097B", "10kB"]);
    round_trip::<Amount>(&["2", "0.5", "1.25", "0.001"]);
    round_trip::<ArrayRange>(&["1-1000", "1-9,20", "1-100%8", "7"]);
    round_trip::<Requirement>(&["zone=a", "zone=a|b", "zone!=a", "ssd", "!ssd"]);
    round_trip::<RetryOn>(&["exit:75", "exit:1-9", "signal", "timeout", "start", "http"]);
    round_trip::<BackoffRange>(&["10s", "5s..5m"]);
    round_trip::<Moment>(&["2026-11-21T08:12:40Z", "1970-01-01T00:00:00.000001Z"]);
}

#[test]
fn what_is_not_a_scalar_is_refused() {
    refuses::<Duration>(&["", "5", "s", "fast", "1.5s", "-1s", "5 s", "99999999999999999d"]);
    refuses::<Size>(&["", "MiB", "1.5GB", "-1", "5XB", "99999999999TiB"]);
    refuses::<Amount>(&["", ".5", "1.", "1.2345", "-1", "1e3", "99999999999999999999"]);
    refuses::<ArrayRange>(&["", "9-1", "1-", "a", "1,,2", "1-9%", "1%x", "4294967295", "+1"]);
    refuses::<Requirement>(&["", "=a", "!", "!=a", "a==b", "a b=c"]);
    refuses::<RetryOn>(&["exit", "exit:", "exit:9-1", "exit:256", "lost", "sginal"]);
    refuses::<BackoffRange>(&["", "fast", "5m..5s", "5s..", "..5s"]);
    refuses::<Moment>(&["", "yesterday", "1969-12-31T23:59:59Z"]);
}

#[test]
fn amounts_are_numbers_in_json_and_exact() {
    let read = |text: &str| serde_json::from_str::<Amount>(text).ok();
    assert_eq!(read("1.5"), Some(Amount(1_500)));
    assert_eq!(read("0.1"), Some(Amount(100)));
    assert_eq!(read("\"0.125\""), Some(Amount(125)));
    assert_eq!(read("2"), Some(Amount(2_000)));
    assert_eq!(read("1.2345"), None);
    assert_eq!(read("-1"), None);
    let written = serde_json::to_string(&[Amount(1_500), Amount(2_000)]);
    assert_eq!(written.ok().as_deref(), Some("[1.5,2]"));
}

#[test]
fn hints_say_what_to_write_instead() {
    let error = "sginal".parse::<RetryOn>().map_err(|error| (error.message, error.hint));
    let wanted =
        ("\"sginal\" is not a kind of failure".to_owned(), "did you mean \"signal\"?".to_owned());
    assert_eq!(error, Err(wanted));
}
