//! Which server to talk to and how: flags, then environment, then the context of the configuration file, then defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_api::ErrorCode;
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::output::Format;
use crate::trouble::{Result, Trouble};

/// Where a server is looked for if nothing else is said.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:7600";
/// How long an answer is waited for if nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigFile {
    /// The context that is used when none is named.
    current: Option<String>,
    /// Clusters by name.
    context: BTreeMap<String, Context>,
}

/// One cluster and how to talk to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Context {
    /// One address, or several separated by commas.
    server: Option<String>,
    /// The default of `--output`.
    output: Option<Format>,
    /// The default of `--timeout`.
    timeout: Option<rota_api::Duration>,
}

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// A flag of this command.
    Flag,
    /// An environment variable.
    Environment(&'static str),
    /// The configuration file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

/// A setting and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

/// Everything that was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// The file that was looked for.
    pub(crate) path: Option<PathBuf>,
    pub(crate) context: Option<Setting<String>>,
    pub(crate) servers: Setting<Vec<String>>,
    pub(crate) output: Setting<Format>,
    pub(crate) timeout: Setting<Duration>,
}

impl Config {
    /// Whether somebody said which server to use.
    pub(crate) fn has_server(&self) -> bool {
        self.servers.origin != Origin::Default
    }

    /// Settles everything from the flags, the process's environment and the configuration file.
    pub(crate) fn load(global: &Global) -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = path(&variable);
        let file = match &path {
            Some(path) => read(path, variable("ROTA_CONFIG").is_some())?,
            None => ConfigFile::default(),
        };
        settle(global, &variable, path, &file)
    }
}

/// Who uses this command line, as far as the environment says so in plain characters.
pub(crate) fn user() -> Option<String> {
    let plain = |name: &String| {
        let fits = 1..=rota_types::limits::NAME_BYTES_MAX;
        fits.contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
    };
    ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok()).find(plain)
}

/// The configuration file's place: `ROTA_CONFIG`, or `rota/config.toml` below the user's configuration directory.
fn path(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = variable("ROTA_CONFIG") {
        return Some(path.into());
    }
    let home = || variable("HOME").map(|home| Path::new(&home).join(".config"));
    let base = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
    Some(base.join("rota/config.toml"))
}

fn read(path: &Path, required: bool) -> Result<ConfigFile> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            return Ok(ConfigFile::default());
        }
        Err(error) => return Err(Trouble::file(path, &error)),
    };
    toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| text.get(..span.start).map_or(1, |text| text.lines().count()));
        let message = format!("{}:{}: {}", path.display(), line.max(1), error.message());
        Trouble::new(ErrorCode::InvalidConfig, message)
    })
}

fn settle(
    global: &Global,
    variable: &impl Fn(&str) -> Option<String>,
    path: Option<PathBuf>,
    file: &ConfigFile,
) -> Result<Config> {
    let from_file = || path.clone().map_or(Origin::Default, Origin::File);
    let flag =
        |value: &Option<String>| value.clone().map(|value| Setting { value, origin: Origin::Flag });
    let env = |name: &'static str| {
        variable(name).map(|value| Setting { value, origin: Origin::Environment(name) })
    };
    let named = flag(&global.context)
        .or_else(|| env("ROTA_CONTEXT"))
        .or_else(|| file.current.clone().map(|value| Setting { value, origin: from_file() }));
    let context = match &named {
        Some(name) => file
            .context
            .get(&name.value)
            .cloned()
            .ok_or_else(|| unknown_context(&name.value, file))?,
        None => Context::default(),
    };
    let server = flag(&global.server)
        .or_else(|| env("ROTA_SERVER"))
        .or_else(|| context.server.clone().map(|value| Setting { value, origin: from_file() }))
        .unwrap_or_else(|| Setting { value: DEFAULT_SERVER.to_owned(), origin: Origin::Default });
    let servers = server.value.split(',').map(str::trim).filter(|part| !part.is_empty());
    Ok(Config {
        servers: Setting { value: servers.map(str::to_owned).collect(), origin: server.origin },
        output: output(global, &env, context.output, from_file())?,
        timeout: timeout(global, &env, context.timeout, from_file())?,
        context: named,
        path,
    })
}

fn output(
    global: &Global,
    env: &impl Fn(&'static str) -> Option<Setting<String>>,
    context: Option<Format>,
    file: Origin,
) -> Result<Setting<Format>> {
    if let Some(value) = global.output {
        return Ok(Setting { value, origin: Origin::Flag });
    }
    if let Some(setting) = env("ROTA_OUTPUT") {
        let value = <Format as clap::ValueEnum>::from_str(&setting.value, true).map_err(|_| {
            Trouble::usage(format!("ROTA_OUTPUT={}: not an output format", setting.value))
        })?;
        return Ok(Setting { value, origin: setting.origin });
    }
    Ok(context.map_or(Setting { value: Format::Table, origin: Origin::Default }, |value| Setting {
        value,
        origin: file,
    }))
}

fn timeout(
    global: &Global,
    env: &impl Fn(&'static str) -> Option<Setting<String>>,
    context: Option<rota_api::Duration>,
    file: Origin,
) -> Result<Setting<Duration>> {
    let micros = |duration: rota_api::Duration| Duration::from_micros(duration.0.micros());
    if let Some(timeout) = global.timeout {
        return Ok(Setting { value: micros(timeout), origin: Origin::Flag });
    }
    if let Some(setting) = env("ROTA_TIMEOUT") {
        let parsed: rota_api::Duration =
            setting.value.parse().map_err(|error: rota_api::ScalarError| {
                Trouble::usage(format!("ROTA_TIMEOUT: {error}"))
            })?;
        return Ok(Setting { value: micros(parsed), origin: setting.origin });
    }
    let default = Setting { value: DEFAULT_TIMEOUT, origin: Origin::Default };
    Ok(context.map_or(default, |value| Setting { value: micros(value), origin: file }))
}

fn unknown_context(name: &str, file: &ConfigFile) -> Trouble {
    let known = file.context.keys().map(String::as_str);
    let hint = match rota_api::suggest::nearest(name, known.clone()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if file.context.is_empty() => "the configuration file has no contexts".to_owned(),
        None => format!("known contexts: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Trouble::new(ErrorCode::InvalidConfig, format!("there is no context \"{name}\"")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> ConfigFile {
        let text = "current = \"a\"\n[context.a]\nserver = \"http://a:1\"\noutput = \"json\"\n\
                    [context.b]\nserver = \"http://b:1, http://b:2\"\ntimeout = \"5s\"\n";
        toml::from_str(text).expect("the text is a configuration")
    }

    fn settled(global: &Global, variables: &[(&str, &str)]) -> Result<Config> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        settle(global, &variable, Some("/c".into()), &file())
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_context() {
        let none = Global::default();
        let from_file = settled(&none, &[]).map(|config| (config.servers, config.output.value));
        let origin = Origin::File("/c".into());
        let servers = Setting { value: vec!["http://a:1".to_owned()], origin };
        assert_eq!(from_file, Ok((servers, Format::Json)));

        let variables = [("ROTA_SERVER", "http://e:1"), ("ROTA_OUTPUT", "yaml")];
        let from_env =
            settled(&none, &variables).map(|config| (config.servers.value, config.output.value));
        assert_eq!(from_env, Ok((vec!["http://e:1".to_owned()], Format::Yaml)));

        let flags = Global {
            server: Some("f:1".to_owned()),
            output: Some(Format::Wide),
            ..Global::default()
        };
        let from_flag =
            settled(&flags, &variables).map(|config| (config.servers.value, config.output.value));
        assert_eq!(from_flag, Ok((vec!["f:1".to_owned()], Format::Wide)));
    }

    #[test]
    fn contexts_are_chosen_by_name_and_unknown_ones_get_a_suggestion() {
        let b = Global { context: Some("b".to_owned()), ..Global::default() };
        let config = settled(&b, &[]).map(|config| (config.servers.value, config.timeout.value));
        let servers = vec!["http://b:1".to_owned(), "http://b:2".to_owned()];
        assert_eq!(config, Ok((servers, Duration::from_secs(5))));
        let c = Global { context: Some("bb".to_owned()), ..Global::default() };
        let hint = settled(&c, &[]).map_err(|trouble| trouble.hint);
        assert_eq!(hint, Err(Some("did you mean \"b\"?".to_owned())));
    }
}
