//! Sequences of writes, and what is answered to them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::maker::{Dice, GROUP, KIND, Maker, SHAPES, Shape, in_version};
use super::value::to_integers;
use super::{
    CAUSE, FieldManager, FieldManagerError, LAST_APPLIED, ResetFields, Seconds, reset_on_main, reset_on_status,
};

/// 2000-01-01, when the fake time of the Go program begins.
pub(super) const START: i64 = 946_684_800;

/// Shapes that are the same but for what is atomic and what tells items apart.
pub(super) const CHANGED: [[usize; 2]; 2] = [[3, 16], [1, 17]];

#[derive(Serialize, Deserialize)]
pub(super) struct Sequence {
    pub(super) has_status: bool,
    pub(super) steps: Vec<Step>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) shape: usize,
    pub(super) op: String,
    pub(super) manager: String,
    pub(super) version: String,
    pub(super) subresource: String,
    pub(super) wait: i64,
    pub(super) object: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) object: Option<Value>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) error: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) causes: Vec<String>,
}

impl Answer {
    /// With what Go leaves to chance put in order: of several errors their order, and which is seen first.
    pub(super) fn normal(mut self) -> Self {
        self.causes.sort();
        if self.error.contains("field not declared in schema") {
            self.error = "field not declared in schema".into();
        } else {
            let mut lines: Vec<&str> = self.error.lines().collect();
            lines.sort_unstable();
            self.error = lines.join("\n");
        }
        self
    }
}

/// Makes the sequence of a seed and plays it.
pub(super) fn play(seed: u64) -> (Sequence, Vec<Answer>) {
    let mut maker = Maker { dice: Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)), wrong: 0 };
    let mut shape_index = maker.dice.below(SHAPES.len());
    let changes_shape = maker.dice.percent(50);
    let has_status = maker.dice.percent(60);
    let has_many_managers = maker.dice.percent(8);
    let len = if has_many_managers { 24 } else { 3 + maker.dice.below(6) };
    let wrong = maker.dice.pick(&[0, 0, 0, 1, 3]);
    let mut sequence = Sequence { has_status, steps: Vec::new() };
    let mut answers = Vec::new();
    let mut live: Option<Value> = None;
    let mut now = START;
    let mut last_config: Option<(String, Value)> = None;
    for index in 0..len {
        maker.wrong = wrong;
        if changes_shape && maker.dice.percent(20) {
            // The schema is changed under the object.
            let pairs = CHANGED.iter().flat_map(|[a, b]| [(*a, *b), (*b, *a)]);
            shape_index = pairs.into_iter().find(|(from, _)| *from == shape_index).map_or(shape_index, |(_, to)| to);
        }
        let shape = &SHAPES[shape_index];
        let version = if maker.dice.percent(75) { "v1" } else { "v2" };
        let subresource = if has_status && live.is_some() && maker.dice.percent(20) { "status" } else { "" };
        let is_apply = maker.dice.percent(if has_many_managers { 20 } else { 55 });
        let mut manager = maker.dice.pick(&["a", "b", "kubectl"]).to_owned();
        let wait = i64::try_from(maker.dice.below(3)).unwrap();
        let (op, object) = if is_apply {
            let op = if maker.dice.percent(45) { "force" } else { "apply" };
            let repeated = last_config.clone().filter(|_| maker.dice.percent(25));
            let mut object = match repeated {
                Some((by, mut config)) => {
                    if maker.dice.percent(70) {
                        manager = by;
                    }
                    config = in_version(shape, &config, version);
                    if maker.dice.percent(50) {
                        let other = maker.thing(shape, version);
                        maker.mix(&mut config, &other);
                    }
                    config
                }
                None => maker.thing(shape, version),
            };
            if maker.dice.percent(2) {
                object["metadata"]["managedFields"] = maker.dice.pick(&[json!([]), json!([{}]), Value::Null]);
            }
            if maker.dice.percent(1) {
                object["kind"] = "Other".into();
            }
            last_config = Some((manager.clone(), object.clone()));
            (op, object)
        } else {
            if has_many_managers {
                manager = format!("m{}", maker.dice.below(14));
            }
            let mut object = match &live {
                // Each keeps a field of its own, so that more own something than an object keeps.
                Some(live) if has_many_managers && maker.dice.percent(80) => {
                    let mut object = in_version(shape, live, version);
                    let labels = &mut object["metadata"]["labels"];
                    if !labels.is_object() {
                        *labels = json!({});
                    }
                    labels[&manager] = maker.dice.pick(&["x", "y"]).into();
                    object
                }
                Some(live) => maker.changed(shape, live, version),
                None => maker.thing(shape, version),
            };
            if maker.dice.percent(12) && index < 4 {
                // As client-side apply leaves it.
                let mut applied = object.clone();
                if let Some(metadata) = applied["metadata"].as_object_mut() {
                    metadata.retain(|name, _| name == "name" || name == "labels");
                }
                let annotations = &mut object["metadata"]["annotations"];
                if !annotations.is_object() {
                    *annotations = json!({});
                }
                annotations[LAST_APPLIED] = applied.to_string().into();
                manager = "kubectl-client-side-apply".into();
            }
            if maker.dice.percent(3) {
                manager = String::new();
            }
            ("update", object)
        };
        now += wait;
        let step = Step {
            shape: shape_index,
            op: op.into(),
            manager,
            version: version.into(),
            subresource: subresource.into(),
            wait,
            object,
        };
        answers.push(answer(shape, has_status, &mut live, &step, Seconds(now)));
        sequence.steps.push(step);
    }
    (sequence, answers)
}

/// Plays one step.
pub(super) fn answer(shape: &Shape, has_status: bool, live: &mut Option<Value>, step: &Step, now: Seconds) -> Answer {
    let mut answer = write(shape, has_status, live.as_ref(), step, now);
    if let Some(object) = &mut answer.object {
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = "uid".into();
        }
        to_integers(object);
        *live = Some(object.clone());
    }
    answer.normal()
}

pub(super) fn write(shape: &Shape, has_status: bool, live: Option<&Value>, step: &Step, now: Seconds) -> Answer {
    let api_version = format!("{GROUP}/{}", step.version);
    let reset = match step.subresource.as_str() {
        "status" => reset_on_status(["example.com/v1", "example.com/v2"]),
        _ if has_status => reset_on_main(&api_version),
        _ => ResetFields::new(),
    };
    let manager = FieldManager {
        versions: shape,
        api_version: &api_version,
        kind: KIND,
        subresource: &step.subresource,
        reset: &reset,
    };
    let empty = || json!({"apiVersion": api_version, "kind": KIND});
    let current = live.map_or_else(empty, |live| in_version(shape, live, &step.version));
    let object = step.object.clone();
    if step.op == "update" {
        return match manager.update(&current, object.clone(), &step.manager, now) {
            Ok(object) => Answer { object: Some(object), ..Answer::default() },
            Err(error) => Answer {
                object: Some(manager.update_no_errors(&current, object, &step.manager, now)),
                error: error.to_string(),
                ..Answer::default()
            },
        };
    }
    match manager.apply(&current, object, &step.manager, step.op == "force", now) {
        Ok(object) => Answer { object: Some(object), ..Answer::default() },
        Err(error) => {
            let code = match &error {
                FieldManagerError::OtherType { .. } | FieldManagerError::ManagedFieldsSet => "400 ",
                FieldManagerError::Conflicts(_) => "409 ",
                _ => "",
            };
            let causes = match &error {
                FieldManagerError::Conflicts(conflicts) => {
                    conflicts.0.iter().map(|it| format!("{CAUSE} {} {}", it.message(), it.path)).collect()
                }
                _ => Vec::new(),
            };
            Answer { object: None, error: format!("{code}{error}"), causes }
        }
    }
}
