//! `serin get`: objects of any kind, as kubectl prints them.

use std::io::Write;

use serde_json::{Value, json};

use crate::api::{Api, View};
use crate::columns::{Columns, Widths};
use crate::discovery::{self, Resource};
use crate::error::{Error, Result};
use crate::output::{self, Format, text};
use crate::target::{Target, TargetArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
KIND is a kind, plural or short name of anything that the API serves, several with commas, or `serin` for all of Serin's kinds. \
endpoint, revision, rollout and server (and their plurals) are short for modelendpoint and so on.

Examples:
  serin get endpoint
  serin get endpoint income -o yaml
  serin get rollouts -A -o wide
  serin get rollouts -l serin.dev/endpoint=income -w
  serin get endpoint/income revisions -o name")]
pub struct GetArgs {
    /// KIND, KIND NAME..., or KIND/NAME...
    #[arg(required = true, value_name = "KIND [NAME]")]
    pub what: Vec<String>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Form of the output; wide has more columns, name only KIND/NAME
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<Format>,
    /// Go on and print every change, until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// Only objects with these labels, such as serin.dev/endpoint=income
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// No headings
    #[arg(long)]
    pub no_headers: bool,
}

pub async fn run(args: &GetArgs, target: &TargetArgs, out: &mut dyn Write) -> Result<()> {
    let target = Target::find(target).await?;
    let asked = ask(&target.api, &args.what).await?;
    if args.all_namespaces && asked.iter().any(|a| !a.names.is_empty()) {
        return Err(Error::NameInAllNamespaces);
    }
    if args.watch {
        return match asked.as_slice() {
            [one] if one.names.len() <= 1 => watch(args, &target, one, out).await,
            _ => Err(Error::Argument { flag: "--watch", got: args.what.join(" "), want: "one kind, or one object" }),
        };
    }
    match args.output {
        Some(Format::Json | Format::Yaml) => print_objects(args, &target, &asked, out).await,
        Some(Format::Name) => print_names(args, &target, &asked, out).await,
        Some(Format::Wide) | None => print_tables(args, &target, &asked, out).await,
    }
}

/// A kind, and the names that were asked for; none means all.
#[derive(Debug)]
pub struct Asked {
    /// The kind.
    pub resource: Resource,
    /// The names.
    pub names: Vec<String>,
}

/// Reads `KIND`, `KIND,KIND`, `KIND NAME...` and `KIND/NAME ...`.
pub async fn ask(api: &Api, what: &[String]) -> Result<Vec<Asked>> {
    let mut asked: Vec<Asked> = Vec::new();
    let slashes = what.iter().filter(|word| word.contains('/')).count();
    if slashes == 0 {
        let (kinds, names) = what.split_first().map_or((String::new(), &[][..]), |(k, n)| (k.clone(), n));
        for kind in kinds.split(',').filter(|kind| !kind.is_empty()) {
            for resource in discovery::resolve(api, kind).await? {
                asked.push(Asked { resource, names: names.to_vec() });
            }
        }
        if asked.is_empty() {
            return Err(Error::NameMissing("KIND".to_owned()));
        }
        return Ok(asked);
    }
    for word in what {
        match word.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
                let resource = discovery::resolve_one(api, kind).await?;
                match asked.iter_mut().find(|a| a.resource == resource) {
                    Some(same) => same.names.push(name.to_owned()),
                    None => asked.push(Asked { resource, names: vec![name.to_owned()] }),
                }
            }
            Some(_) => return Err(Error::MixedNames(word.clone())),
            // `endpoint/income rollouts`: a word without a name is a whole kind.
            None => {
                let found = discovery::resolve(api, word).await.map_err(|error| match error {
                    Error::UnknownKind { .. } => Error::MixedNames(word.clone()),
                    other => other,
                })?;
                for resource in found {
                    asked.push(Asked { resource, names: Vec::new() });
                }
            }
        }
    }
    Ok(asked)
}

fn query(args: &GetArgs) -> Vec<(&str, &str)> {
    args.selector.iter().map(|selector| ("labelSelector", selector.as_str())).collect()
}

fn scope<'a>(args: &GetArgs, target: &'a Target) -> Option<&'a str> {
    (!args.all_namespaces).then_some(target.namespace.as_str())
}

fn not_found(resource: &Resource, name: &str, target: &Target) -> Error {
    Error::NotFound { kind: resource.singular.clone(), name: name.to_owned(), namespace: target.namespace.clone() }
}

/// All objects that were asked for.
async fn objects(args: &GetArgs, target: &Target, asked: &Asked) -> Result<Vec<Value>> {
    let Asked { resource, names } = asked;
    if names.is_empty() {
        let mut list = target.api.list(resource, scope(args, target), &query(args), View::Object).await?;
        let items = list["items"].take();
        let items = if let Value::Array(items) = items { items } else { Vec::new() };
        // Items of a list need not say their kind; printed alone they have to.
        return Ok(items.into_iter().map(|item| typed(resource, item)).collect());
    }
    let mut found = Vec::new();
    for name in names {
        found.push(target.api.fetch(resource, &target.namespace, name).await?);
    }
    Ok(found)
}

fn typed(resource: &Resource, mut object: Value) -> Value {
    if object.is_object() {
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.clone().into();
    }
    object
}

async fn print_objects(args: &GetArgs, target: &Target, asked: &[Asked], out: &mut dyn Write) -> Result<()> {
    let mut items = Vec::new();
    for one in asked {
        items.extend(objects(args, target, one).await?.into_iter().map(output::tidy));
    }
    let single = asked.len() == 1 && asked[0].names.len() == 1;
    let value = match items.pop() {
        Some(only) if single => only,
        last => {
            items.extend(last);
            json!({"apiVersion": "v1", "kind": "List", "items": items, "metadata": {}})
        }
    };
    match args.output {
        Some(Format::Json) => output::json(out, &value),
        _ => output::yaml(out, &value),
    }
}

async fn print_names(args: &GetArgs, target: &Target, asked: &[Asked], out: &mut dyn Write) -> Result<()> {
    for one in asked {
        for object in objects(args, target, one).await? {
            writeln!(out, "{}", one.resource.label(text(&object, "/metadata/name")))?;
        }
    }
    Ok(())
}

async fn print_tables(args: &GetArgs, target: &Target, asked: &[Asked], out: &mut dyn Write) -> Result<()> {
    let mut printed = false;
    for one in asked {
        let mut columns: Option<Columns> = None;
        let wide = args.output == Some(Format::Wide);
        let tables = if one.names.is_empty() {
            vec![target.api.list(&one.resource, scope(args, target), &query(args), View::Table).await?]
        } else {
            let mut tables = Vec::new();
            for name in &one.names {
                let table = target.api.find(&one.resource, &target.namespace, name, View::Table).await?;
                tables.push(table.ok_or_else(|| not_found(&one.resource, name, target))?);
            }
            tables
        };
        for table in &tables {
            let shape = Shape { wide, namespace: args.all_namespaces && one.resource.namespaced, kind: None };
            add_table(&mut columns, table, &shape, (asked.len() > 1).then_some(&one.resource));
        }
        if let Some(columns) = columns.filter(|columns| !columns.is_empty()) {
            if printed {
                writeln!(out)?;
            }
            columns.print_with(out, &mut Widths::default(), !args.no_headers)?;
            printed = true;
        }
    }
    if !printed {
        let place = match scope(args, target) {
            Some(namespace) => format!(" in namespace {namespace}"),
            None => String::new(),
        };
        crate::console::note(&format!("no objects found{place}, at {}", target.place));
    }
    Ok(())
}

/// What a table shows beside the server's first columns.
#[derive(Debug, Default)]
struct Shape {
    wide: bool,
    namespace: bool,
    kind: Option<String>,
}

/// Adds the rows of a Table, of a list, or of one object.
fn add_table(columns: &mut Option<Columns>, table: &Value, shape: &Shape, prefix: Option<&Resource>) {
    let is_table = table["kind"] == "Table";
    let definitions = table["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = |definition: &Value| shape.wide || definition["priority"].as_i64().unwrap_or(0) == 0;
    let columns = columns.get_or_insert_with(|| {
        let mut head: Vec<String> = Vec::new();
        head.extend(shape.kind.clone());
        if shape.namespace {
            head.push("NAMESPACE".to_owned());
        }
        if is_table {
            let names = definitions.iter().filter(|d| shown(d)).filter_map(|d| d["name"].as_str());
            head.extend(names.map(str::to_uppercase));
        } else {
            head.extend(["NAME".to_owned(), "AGE".to_owned()]);
        }
        Columns::new(head)
    });
    let prefixed = |name: &str| prefix.map_or_else(|| name.to_owned(), |resource| resource.label(name));
    if is_table {
        for row in table["rows"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let mut cells = Vec::new();
            if shape.namespace {
                cells.push(text(row, "/object/metadata/namespace").to_owned());
            }
            let values = row["cells"].as_array().map(Vec::as_slice).unwrap_or_default();
            for (index, (value, _)) in values.iter().zip(definitions).enumerate().filter(|(_, (_, d))| shown(d)) {
                let cell = cell_text(value);
                cells.push(if index == 0 { prefixed(&cell) } else { cell });
            }
            columns.row(cells);
        }
        return;
    }
    // A server without tables sends the objects.
    let items = table["items"].as_array().map_or(std::slice::from_ref(table), Vec::as_slice);
    for item in items {
        let mut cells = Vec::new();
        if shape.namespace {
            cells.push(text(item, "/metadata/namespace").to_owned());
        }
        cells.push(prefixed(text(item, "/metadata/name")));
        cells.push(crate::time::age_of(text(item, "/metadata/creationTimestamp")));
        columns.row(cells);
    }
}

fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Prints the objects, then every change of them, until the caller is interrupted or the API goes away.
async fn watch(args: &GetArgs, target: &Target, asked: &Asked, out: &mut dyn Write) -> Result<()> {
    let mut printer = WatchPrinter { args, resource: &asked.resource, widths: Widths::default(), head_done: false };
    let view = match args.output {
        None | Some(Format::Wide) => View::Table,
        Some(_) => View::Object,
    };
    let field = asked.names.first().map(|name| format!("metadata.name={name}"));
    let mut query = query(args);
    query.extend(field.iter().map(|field| ("fieldSelector", field.as_str())));
    let mut first = true;
    'list: loop {
        let list = target.api.list(&asked.resource, scope(args, target), &query, view).await?;
        let mut version = text(&list, "/metadata/resourceVersion").to_owned();
        if let (true, Some(name)) = (first && is_empty(&list), asked.names.first()) {
            return Err(not_found(&asked.resource, name, target));
        }
        // After an expired watch the list may repeat what was printed; leaving out a change would be worse.
        printer.print(&list, None, out)?;
        first = false;
        loop {
            let mut from = query.clone();
            from.push(("resourceVersion", &version));
            let mut events = match target.api.watch(&asked.resource, scope(args, target), &from, view).await {
                Err(error) if error.has_code(410) => continue 'list,
                other => other?,
            };
            let mut newest = String::new();
            while let Some(event) = events.next().await? {
                if event.kind == "ERROR" {
                    if event.object["code"] == 410 {
                        continue 'list;
                    }
                    return Err(watch_error(&asked.resource, &event.object));
                }
                let seen = [&event.object, &event.object["rows"][0]["object"]];
                let seen = seen.iter().map(|object| text(object, "/metadata/resourceVersion")).find(|v| !v.is_empty());
                if let Some(seen) = seen {
                    newest = seen.to_owned();
                }
                if event.kind != "BOOKMARK" {
                    printer.print(&event.object, Some(&event.kind), out)?;
                }
            }
            if newest.is_empty() {
                // The server closed a quiet watch at once or at its timeout; do not spin.
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            } else {
                version = newest;
            }
        }
    }
}

fn is_empty(list: &Value) -> bool {
    let none = |key| list[key].as_array().is_none_or(Vec::is_empty);
    none("rows") && none("items")
}

fn watch_error(resource: &Resource, status: &Value) -> Error {
    let status = crate::refusal::ApiStatus {
        code: status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500),
        message: text(status, "/message").to_owned(),
        causes: Vec::new(),
    };
    Error::Refused { what: format!("watch of {}", resource.plural), status: Box::new(status) }
}

struct WatchPrinter<'a> {
    args: &'a GetArgs,
    resource: &'a Resource,
    widths: Widths,
    head_done: bool,
}

impl WatchPrinter<'_> {
    fn print(&mut self, value: &Value, _event: Option<&str>, out: &mut dyn Write) -> Result<()> {
        match self.args.output {
            None | Some(Format::Wide) => self.print_table(value, out)?,
            Some(format) => {
                let items = value["items"].as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                for item in items {
                    let item = output::tidy(typed(self.resource, item));
                    match format {
                        Format::Json => output::json(out, &item)?,
                        Format::Yaml => {
                            writeln!(out, "---")?;
                            output::yaml(out, &item)?;
                        }
                        _ => writeln!(out, "{}", self.resource.label(text(&item, "/metadata/name")))?,
                    }
                }
            }
        }
        out.flush()?;
        Ok(())
    }

    fn print_table(&mut self, table: &Value, out: &mut dyn Write) -> Result<()> {
        let wide = self.args.output == Some(Format::Wide);
        let shape = Shape { wide, namespace: self.args.all_namespaces && self.resource.namespaced, kind: None };
        let mut columns = None;
        add_table(&mut columns, table, &shape, None);
        if let Some(columns) = columns.filter(|columns| !columns.is_empty()) {
            columns.print_with(out, &mut self.widths, !self.head_done && !self.args.no_headers)?;
            self.head_done = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(table: &Value, shape: &Shape) -> String {
        let mut columns = None;
        add_table(&mut columns, table, shape, None);
        let mut out = Vec::new();
        columns.unwrap().print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_show_what_the_server_says_and_wide_ones_more() {
        let table = json!({"kind": "Table",
            "columnDefinitions": [
                {"name": "Name", "priority": 0}, {"name": "Step", "priority": 0}, {"name": "Digest", "priority": 1}],
            "rows": [{"cells": ["income", null, "sha256:aa"], "object": {"metadata": {"namespace": "ml"}}},
                     {"cells": ["spam", "1/4", 7], "object": {"metadata": {"namespace": "default"}}}]});
        let shape = |wide, namespace| Shape { wide, namespace, kind: None };
        assert_eq!(printed(&table, &shape(false, false)), "NAME     STEP\nincome\nspam     1/4\n");
        assert_eq!(
            printed(&table, &shape(true, true)),
            "NAMESPACE   NAME     STEP   DIGEST\nml          income          sha256:aa\ndefault     spam     1/4    7\n"
        );
    }

    #[test]
    fn a_server_without_tables_still_gives_names() {
        let list = json!({"kind": "SecretList", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]});
        assert!(printed(&list, &Shape::default()).starts_with("NAME   AGE\na"));
        let one = json!({"kind": "Secret", "metadata": {"name": "a"}});
        assert!(printed(&one, &Shape::default()).starts_with("NAME   AGE\na"));
    }
}
