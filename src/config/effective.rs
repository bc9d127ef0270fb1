//! The settings as they are in force, each with where it comes from: for a person who wonders why.
//!
//! Which settings there are, and what holds where nothing is said, stands in docs/configuration.md, once: its table is read
//! here. So no setting is in the documents that is not shown, and none is shown that is not there.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::{Config, ConfigError, DEFAULT_FILE, Environment, Overrides};

/// The one list of settings.
const DOCUMENT: &str = include_str!("../../docs/configuration.md");

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The settings file.
    File(PathBuf),
    /// A variable, by its name.
    Variable(String),
    /// A flag, by its name.
    Flag(String),
}

/// A setting that is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// As in `pools[0].keep`.
    pub name: String,
    /// Its value; for a default in the words of the documents. Never a secret.
    pub value: String,
    /// Who said so.
    pub from: Source,
}

/// Variables of others that stand in for a setting that the file does not have.
const STAND_INS: [(&str, &str); 4] = [
    ("azure.authority", "AZURE_AUTHORITY_HOST"),
    ("azure.tenant", "AZURE_TENANT_ID"),
    ("azure.client", "AZURE_CLIENT_ID"),
    ("azure.tokenFile", "AZURE_FEDERATED_TOKEN_FILE"),
];
const SECRET: &str = "KAMINO_AZURE_CLIENT_SECRET";

/// All settings, in the order of the documents. `by_flag` says whether a flag was given, or its variable.
///
/// # Errors
/// As [`Config::load`]: settings that can't be used are not in force.
pub fn effective(
    overrides: &Overrides,
    by_flag: &dyn Fn(&str) -> bool,
    env: Environment<'_>,
) -> Result<Vec<Setting>, ConfigError> {
    Config::load(overrides.clone(), env)?;
    let path = overrides.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let file = match std::fs::read_to_string(&path) {
        Ok(text) => read(&path, &text)?,
        Err(_) => Value::Null,
    };
    let mut settings = vec![which_file(overrides, by_flag, &path)];
    for (name, default) in documented() {
        if let Some(field) = name.strip_prefix("pools[].") {
            pools(&file, field, &default, &path, &mut settings);
        } else if let Some(setting) = overridden(overrides, by_flag, &name) {
            settings.push(setting);
        } else if let Some(value) = at(&file, &name) {
            settings.push(Setting { value: shown(&name, value), name, from: Source::File(path.clone()) });
        } else {
            settings.push(stand_in(name, default, env));
        }
    }
    if env(SECRET).is_some_and(|secret| !secret.is_empty()) {
        let value = "set, and not shown".into();
        settings.push(Setting { name: "the client's secret".into(), value, from: Source::Variable(SECRET.into()) });
    }
    Ok(settings)
}

fn read(path: &Path, text: &str) -> Result<Value, ConfigError> {
    serde_saphyr::from_str(text)
        .map_err(|error| ConfigError::Malformed { path: path.to_owned(), detail: error.to_string() })
}

fn which_file(overrides: &Overrides, by_flag: &dyn Fn(&str) -> bool, path: &Path) -> Setting {
    let from = match &overrides.config {
        Some(_) if by_flag("config") => Source::Flag("--config".into()),
        Some(_) => Source::Variable("KAMINO_CONFIG".into()),
        None => Source::Default,
    };
    let there = if path.exists() { "" } else { ", which is not there" };
    Setting { name: "the settings file".into(), value: format!("{}{there}", path.display()), from }
}

fn overridden(overrides: &Overrides, by_flag: &dyn Fn(&str) -> bool, name: &str) -> Option<Setting> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let (flag, value) = match name {
        "store" => ("store", path(&overrides.store)),
        "kubernetes.kubeconfig" => ("kubeconfig", path(&overrides.kubeconfig)),
        "kubernetes.context" => ("context", overrides.context.clone()),
        _ => return None,
    };
    let from = if by_flag(flag) {
        Source::Flag(format!("--{flag}"))
    } else {
        Source::Variable(format!("KAMINO_{}", flag.to_uppercase()))
    };
    Some(Setting { name: name.to_owned(), value: value?, from })
}

fn stand_in(name: String, default: String, env: Environment<'_>) -> Setting {
    let variable = STAND_INS.iter().find(|(setting, _)| *setting == name).map(|(_, variable)| *variable);
    let said = variable.and_then(|variable| Some((variable, env(variable).filter(|value| !value.is_empty())?)));
    match said {
        Some((variable, value)) => {
            Setting { value: shown(&name, &Value::from(value)), name, from: Source::Variable(variable.to_owned()) }
        }
        None => Setting { name, value: default, from: Source::Default },
    }
}

/// A setting of each pool.
fn pools(file: &Value, field: &str, default: &str, path: &Path, settings: &mut Vec<Setting>) {
    for (index, pool) in file["pools"].as_array().into_iter().flatten().enumerate() {
        let name = format!("pools[{index}].{field}");
        let (value, from) = match at(pool, field) {
            Some(value) => (shown(field, value), Source::File(path.to_owned())),
            None => (default.to_owned(), Source::Default),
        };
        settings.push(Setting { name, value, from });
    }
}

/// What the file says at `a.b`, or at `a[]`.
fn at<'a>(file: &'a Value, name: &str) -> Option<&'a Value> {
    let pointer = format!("/{}", name.trim_end_matches("[]").replace('.', "/"));
    file.pointer(&pointer).filter(|value| !value.is_null())
}

/// No setting holds a secret, and the file is refused where one is put into it. What a URL carries before its host is hidden
/// all the same, and so is whatever is named like one.
fn shown(name: &str, value: &Value) -> String {
    let last = name.rsplit('.').next().unwrap_or(name).to_lowercase();
    // The name of an annotation is none.
    let named_like_one =
        last != "key" && ["secret", "password", "token", "key"].iter().any(|word| last.ends_with(word));
    if named_like_one {
        return "set, and not shown".into();
    }
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (_, host))) => format!("{scheme}://…@{host}"),
        None => text,
    }
}

/// The names in the documents' table, with the default in its words.
fn documented() -> Vec<(String, String)> {
    let rows = DOCUMENT.lines().skip_while(|line| !line.starts_with("| key |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
        Some((cells.next()?, cells.next()?))
    })
    .flat_map(|(names, default)| {
        let names: Vec<String> = names.split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
        // `A`, `B` for `a`, `b`.
        let defaults: Vec<String> = default.split(", `").map(|it| it.replace('`', "")).collect();
        let whole = default.replace('`', "");
        let one_each = names.len() > 1 && defaults.len() == names.len();
        names
            .into_iter()
            .enumerate()
            .map(move |(index, name)| (name, if one_each { defaults[index].clone() } else { whole.clone() }))
            .collect::<Vec<_>>()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, overrides: Overrides, variables: &[(&str, &str)]) -> Vec<Setting> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, text).expect("a file");
        let overrides = Overrides { config: Some(path), ..overrides };
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        effective(&overrides, &|flag| flag == "context", &env).expect("good settings")
    }

    fn the<'a>(settings: &'a [Setting], name: &str) -> &'a Setting {
        settings.iter().find(|setting| setting.name == name).unwrap_or_else(|| panic!("no {name} in {settings:#?}"))
    }

    #[test]
    fn the_documents_table_is_read_whole() {
        let names: Vec<String> = documented().into_iter().map(|(name, _)| name).collect();
        assert!(names.len() > 35, "{names:?}");
        for name in
            ["store", "azure.client", "kubernetes.context", "serve.runsAtOnce", "pools[].name", "pools[].windows[]"]
        {
            assert!(names.iter().any(|known| known == name), "no {name} in {names:?}");
        }
        let plain = |name: &String| {
            name.chars().all(|letter| letter.is_ascii_alphanumeric() || ".[]".contains(letter)) && !name.is_empty()
        };
        assert!(names.iter().all(plain), "a row of docs/configuration.md is not as the others: {names:?}");
    }

    /// What the example of the documents sets is shown as coming from there: nothing is set that the table lacks.
    #[test]
    fn whatever_the_example_sets_is_shown() {
        fn leaves(value: &Value, at: String, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    for (name, value) in fields {
                        leaves(value, if at.is_empty() { name.clone() } else { format!("{at}.{name}") }, found);
                    }
                }
                Value::Array(items) if items.iter().all(Value::is_object) && !at.contains('[') => {
                    for (index, item) in items.iter().enumerate() {
                        leaves(item, format!("{at}[{index}]"), found);
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => found.push(at),
            }
        }
        let text = include_str!("../../docs/examples/config.yaml");
        let settings = of(
            text,
            Overrides::default(),
            &[("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_FEDERATED_TOKEN_FILE", "/f")],
        );
        let mut set = Vec::new();
        leaves(&read(Path::new("example"), text).expect("it is YAML"), String::new(), &mut set);
        for name in set {
            let name = if name.ends_with("windows") { format!("{name}[]") } else { name };
            assert!(matches!(the(&settings, &name).from, Source::File(_)), "{name} is not shown as the file's");
        }
    }

    #[test]
    fn each_setting_says_where_it_comes_from() {
        let file = "store: /from/file\nkubernetes: { lease: mine }\nazure: { resourceManager: 'https://me:hunter2@arm.example' }\n";
        let overrides =
            Overrides { store: Some("/from/variable".into()), context: Some("by-flag".into()), ..Overrides::default() };
        let settings =
            of(file, overrides, &[("AZURE_TENANT_ID", "tenant-1"), (SECRET, "hunter2"), ("AZURE_CLIENT_ID", "c")]);
        let said = |name: &str| (the(&settings, name).value.clone(), the(&settings, name).from.clone());
        assert_eq!(said("store"), ("/from/variable".into(), Source::Variable("KAMINO_STORE".into())));
        assert_eq!(said("kubernetes.context"), ("by-flag".into(), Source::Flag("--context".into())));
        assert!(matches!(said("kubernetes.lease"), (value, Source::File(_)) if value == "mine"));
        assert_eq!(said("azure.tenant"), ("tenant-1".into(), Source::Variable("AZURE_TENANT_ID".into())));
        assert_eq!(said("polling.first"), ("5s".into(), Source::Default));
        assert_eq!(said("the client's secret"), ("set, and not shown".into(), Source::Variable(SECRET.into())));
        assert_eq!(said("azure.resourceManager").0, "https://…@arm.example");
        assert!(!serde_json::to_string(&settings).expect("JSON").contains("hunter2"), "a secret is shown");
    }

    #[test]
    fn a_pool_has_its_own_and_the_defaults() {
        let pool = "pools:\n- name: p\n  scaleSet: /subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/k8s/providers/Microsoft.Compute/virtualMachineScaleSets/pool1\n  profile: kubeadm\n  gallery: /subscriptions/5d3a6f0c-7e1b-4c55-9a52-0f6f4a1f2b77/resourceGroups/k8s/providers/Microsoft.Compute/galleries/protos\n  keep: 5\n";
        let settings = of(pool, Overrides::default(), &[]);
        assert_eq!(the(&settings, "pools[0].keep").value, "5");
        assert_eq!(
            (the(&settings, "pools[0].minReady").value.as_str(), &the(&settings, "pools[0].minReady").from),
            ("1h", &Source::Default)
        );
    }
}
