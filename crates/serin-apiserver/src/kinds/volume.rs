//! What may be wrong with the volumes of a pod.
//! Source: `k8s.io/kubernetes/pkg/apis/core/validation/validation.go`, `ValidateVolumes` and what it calls. Volumes of clouds
//! and of storage systems that a laptop does not have are only counted.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::rules::{check_descending, check_dns_label, check_no_backsteps};
use super::values::{Errors, check_given, check_one_of, indexed, text};
use crate::status::FieldError;

/// Good volumes by name.
pub(super) type Volumes<'a> = HashMap<&'a str, &'a Value>;

/// Kinds of volumes, in the order in which Kubernetes looks for them, with the names in its messages.
const SOURCES: [(&str, &str); 30] = [
    ("emptyDir", "emptyDir"),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];

/// All volumes of a spec; gives the good ones.
pub(super) fn check_all<'a>(spec: &'a Value, path: &str, errors: &mut Errors) -> Volumes<'a> {
    let mut good = Volumes::new();
    for (path, volume) in indexed(spec, "volumes", path) {
        let count = errors.len();
        let name = text(volume, "name");
        check_source(volume, &path, errors);
        check_given(volume, "name", &path, errors);
        if !name.is_empty() {
            check_dns_label(name, &format!("{path}.name"), errors);
        }
        if good.contains_key(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        if errors.len() == count {
            good.insert(name, volume);
        }
    }
    good
}

fn check_source(volume: &Value, path: &str, errors: &mut Errors) {
    let mut is_first = true;
    for (source, named) in SOURCES {
        let given = &volume[source];
        if given.is_null() {
            continue;
        }
        if is_first {
            check_one(source, given, &format!("{path}.{source}"), errors);
        } else {
            let why = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(format!("{path}.{named}"), why));
        }
        is_first = false;
    }
    if is_first {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn check_one(source: &str, given: &Value, path: &str, errors: &mut Errors) {
    match source {
        "hostPath" => {
            check_given(given, "path", path, errors);
            check_no_backsteps(text(given, "path"), &format!("{path}.path"), errors);
            let types =
                ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
            check_one_of(given, "type", &types, path, errors);
        }
        "secret" => {
            check_given(given, "secretName", path, errors);
            check_files(given, path, errors);
        }
        "configMap" => {
            check_given(given, "name", path, errors);
            check_files(given, path, errors);
        }
        "persistentVolumeClaim" => check_given(given, "claimName", path, errors),
        "nfs" => {
            check_given(given, "server", path, errors);
            check_given(given, "path", path, errors);
        }
        "csi" => check_given(given, "driver", path, errors),
        "image" => {
            check_given(given, "reference", path, errors);
            check_one_of(given, "pullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
        }
        "ephemeral" if given["volumeClaimTemplate"].is_null() => {
            errors.push(FieldError::required(format!("{path}.volumeClaimTemplate"), ""));
        }
        "projected" => check_projected(given, path, errors),
        "downwardAPI" => check_mode(given, "defaultMode", path, errors),
        _ => {}
    }
}

fn check_files(source: &Value, path: &str, errors: &mut Errors) {
    check_mode(source, "defaultMode", path, errors);
    for (path, file) in indexed(source, "items", path) {
        check_file(file, &path, errors);
    }
}

/// A key that becomes a file.
fn check_file(file: &Value, path: &str, errors: &mut Errors) {
    check_given(file, "key", path, errors);
    check_given(file, "path", path, errors);
    let target = text(file, "path");
    let path_of_target = format!("{path}.path");
    check_descending(target, &path_of_target, errors);
    if target.starts_with("..") && target != ".." && !target.starts_with("../") {
        errors.push(FieldError::invalid(path_of_target, target, "must not start with '..'"));
    }
    check_mode(file, "mode", path, errors);
}

fn check_mode(value: &Value, field: &str, path: &str, errors: &mut Errors) {
    if let Some(mode) = value[field].as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(format!("{path}.{field}"), mode, why));
    }
}

fn check_projected(projected: &Value, path: &str, errors: &mut Errors) {
    check_mode(projected, "defaultMode", path, errors);
    let mut seen = HashSet::new();
    for (source_path, source) in indexed(projected, "sources", path) {
        for kind in ["secret", "configMap"] {
            let Some(given) = source.get(kind).filter(|given| !given.is_null()) else { continue };
            let kind_path = format!("{source_path}.{kind}");
            check_given(given, "name", &kind_path, errors);
            for (item_path, file) in indexed(given, "items", &kind_path) {
                check_file(file, &item_path, errors);
                if !text(file, "path").is_empty() && !seen.insert(text(file, "path")) {
                    errors.push(FieldError::invalid(path, text(given, "name"), "conflicting duplicate paths"));
                }
            }
        }
        let kinds = source.as_object().into_iter().flatten().filter(|(_, given)| !given.is_null());
        if kinds.count() > 1 {
            let why = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(source_path, why));
        }
    }
}

/// Whether a volume is a claim, which alone can be a device.
pub(super) fn is_claim(volume: &Value) -> bool {
    !volume["persistentVolumeClaim"].is_null() || !volume["ephemeral"].is_null()
}
