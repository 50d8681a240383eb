//! The JSON documents: their shape is what programs rely on.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use oxublk::host::{Holder, Usage};
use oxublk::sys::{DevAttrs, Features, ParamTypes, Params};
use oxublk::{DeviceId, DeviceInfo, DeviceState};
use oxublk_cli::args::DeviceOptions;
use oxublk_cli::exit::{Exit, Failure};
use oxublk_cli::report::{
    Added, Deleted, DeletedDevice, DeviceMetrics, DiskParams, DriverFeatures, Ended, HeldBy, Info,
    Latency, Listed, ListedDevice, Live, Operation, Queue, Request, Server, granted,
};
use oxublk_cli::state::{Description, FileIo, Origin, SharedFile};
use serde_json::{Value, json};

fn metrics() -> DeviceMetrics {
    let latency = Latency {
        p50_ns: 1,
        p99_ns: 2,
        p99_9_ns: 3,
        max_ns: 4,
    };
    let operation = Operation {
        operation: "read".to_owned(),
        requests: 2,
        bytes: 8192,
        errors: 0,
        latency: Some(latency),
    };
    let request = Request {
        tag: 5,
        operation: "write".to_owned(),
        sector: 8,
        bytes: 4096,
        station: "with_disk".to_owned(),
        age_ns: 77,
    };
    let operations = vec![operation.clone()];
    let queue = Queue {
        queue: 0,
        operations,
        in_flight: vec![request],
    };
    DeviceMetrics {
        total: vec![operation],
        queues: vec![queue],
        oldest_in_flight_ns: Some(77),
        stuck_now: Some(0),
        stuck_total: Some(1),
        shared_requests: 2,
        shared_bytes: 8192,
    }
}

fn description() -> Description {
    let options = DeviceOptions {
        id: Some(3),
        ..DeviceOptions::default()
    };
    let features = Features::CMD_IOCTL_ENCODE;
    let origin = Origin {
        path: Some("/disk.img".to_owned()),
        io: Some(FileIo {
            direct: true,
            why: "it can be".to_owned(),
        }),
        ..Origin::new("mem")
    };
    let description =
        Description::of_this_process(DeviceId(3), &origin, 16 << 20, features, options).unwrap();
    Description {
        shared_memory: vec![SharedFile {
            file: "/dev/shm/a".into(),
            slot: 0,
            bytes: 4096,
            sealed: false,
        }],
        ..description
    }
}

fn holder() -> HeldBy {
    let usage = Usage::Mount("/mnt".into());
    (&Holder {
        pid: None,
        command: "mount".to_owned(),
        disk: "ublkb3".to_owned(),
        usage,
    })
        .into()
}

fn params() -> Params {
    let mut params = Params {
        types: ParamTypes::BASIC.bits(),
        ..Params::default()
    };
    params.basic.attrs = (DevAttrs::VOLATILE_CACHE | DevAttrs::READ_ONLY).bits();
    params.basic.logical_bs_shift = 9;
    params.basic.physical_bs_shift = 12;
    params.basic.max_sectors = 2048;
    params.basic.dev_sectors = 32768;
    params.discard.max_discard_sectors = 99;
    params
}

fn info() -> Info {
    Info {
        id: 3,
        block_path: "/dev/ublkb3".to_owned(),
        char_path: "/dev/ublkc3".to_owned(),
        state: DeviceState::FailIo.to_string(),
        size_bytes: Some(16 << 20),
        queues: 1,
        depth: 128,
        features: granted(Features::USER_COPY),
        params: Some(DiskParams::from(&params())),
        server: Some(Server {
            pid: 7,
            command: None,
            running: false,
            memory_bytes: Some(1 << 20),
        }),
        owner_uid: 0,
        owner_gid: 0,
        description: Some(description()),
        uptime_seconds: Some(1),
        holders: vec![holder()],
        metrics: Some(metrics()),
        notes: vec![],
    }
}

fn listed() -> Listed {
    let device = ListedDevice {
        id: 3,
        block_path: "/dev/ublkb3".to_owned(),
        state: None,
        size_bytes: None,
        queues: None,
        depth: None,
        server: None,
        target: None,
        uptime_seconds: None,
    };
    Listed {
        devices: vec![device],
        notes: vec!["a note".to_owned()],
    }
}

fn deleted() -> Deleted {
    let error = Failure::new(Exit::Busy, "device 3 is in use");
    let device = DeletedDevice {
        id: 3,
        deleted: false,
        holders: vec![holder()],
        error: Some(error),
        notes: vec![],
    };
    Deleted {
        devices: vec![device],
    }
}

fn added() -> Added {
    Added {
        id: 3,
        block_path: "/dev/ublkb3".to_owned(),
        char_path: "/dev/ublkc3".to_owned(),
        target: "mem".to_owned(),
        size_bytes: 16 << 20,
        queues: 1,
        depth: 128,
        server_pid: 7,
        notes: vec![],
    }
}

/// Every name of a field anywhere in `document`.
fn names(document: &Value, found: &mut Vec<String>) {
    match document {
        Value::Object(fields) => {
            for (name, value) in fields {
                found.push(name.clone());
                names(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

#[test]
fn every_field_is_in_the_readme() {
    let documents = [
        serde_json::to_value(added()),
        serde_json::to_value(listed()),
        serde_json::to_value(info()),
        serde_json::to_value(deleted()),
        serde_json::to_value(DriverFeatures::from(Features::all())),
        serde_json::to_value(Ended {
            id: 3,
            metrics: metrics(),
        }),
        serde_json::to_value(Live {
            description: description(),
            metrics: metrics(),
        }),
    ];
    let readme = include_str!("../README.md");
    let json = readme
        .split("## JSON")
        .nth(1)
        .expect("the README describes JSON");
    for document in documents {
        let mut found = Vec::new();
        names(&document.unwrap(), &mut found);
        for name in found {
            assert!(
                json.contains(&format!("`{name}`")),
                "the README lacks `{name}`"
            );
        }
    }
}

#[test]
fn add() {
    let expected = json!({
        "id": 3, "block_path": "/dev/ublkb3", "char_path": "/dev/ublkc3", "target": "mem",
        "size_bytes": 16_777_216, "queues": 1, "depth": 128, "server_pid": 7, "notes": [],
    });
    assert_eq!(serde_json::to_value(added()).unwrap(), expected);
}

#[test]
fn list_says_null_for_what_is_not_known() {
    let expected = json!({
        "devices": [{
            "id": 3, "block_path": "/dev/ublkb3", "state": null, "size_bytes": null,
            "queues": null, "depth": null, "server": null, "target": null,
            "uptime_seconds": null,
        }],
        "notes": ["a note"],
    });
    assert_eq!(serde_json::to_value(listed()).unwrap(), expected);
}

#[test]
fn del_names_holders_and_the_reason() {
    let expected = json!({ "devices": [{
        "id": 3, "deleted": false,
        "holders": [{
            "pid": null, "command": "mount", "disk": "ublkb3", "usage": "mount", "target": "/mnt",
        }],
        "error": { "kind": "busy", "message": "device 3 is in use", "causes": [], "hint": null },
        "notes": [],
    }]});
    assert_eq!(serde_json::to_value(deleted()).unwrap(), expected);
}

#[test]
fn features_have_a_bit_and_are_here_or_not() {
    let bit_40 = Features::from_bits_retain(1 << 40);
    let document =
        serde_json::to_value(DriverFeatures::from(Features::USER_COPY | bit_40)).unwrap();
    assert_eq!(document["bits"], "0x10000000080");
    assert_eq!(document["unknown_bits"], json!([40]));
    let features = document["features"].as_array().unwrap();
    let user_copy = features
        .iter()
        .find(|feature| feature["name"] == "USER_COPY")
        .unwrap();
    assert_eq!(
        (&user_copy["bit"], &user_copy["present"]),
        (&json!(7), &json!(true))
    );
    assert_eq!(user_copy["since"], "6.5");
    let here = features
        .iter()
        .filter(|feature| feature["present"] == json!(true))
        .count();
    assert_eq!(here, 1);
}

#[test]
fn params_are_in_bytes() {
    let expected = json!({
        "size_bytes": 16_777_216, "logical_block_bytes": 512, "physical_block_bytes": 4096,
        "max_io_bytes": 1_048_576, "optimal_io_bytes": null, "minimum_io_bytes": null,
        "read_only": true, "rotational": false, "volatile_cache": true, "fua": false,
        "discard_granularity_bytes": null, "max_discard_bytes": 0, "max_write_zeroes_bytes": 0,
    });
    assert_eq!(
        serde_json::to_value(DiskParams::from(&params())).unwrap(),
        expected
    );
    let mut nonsense = params();
    nonsense.basic.logical_bs_shift = 200;
    nonsense.basic.dev_sectors = u64::MAX;
    assert_eq!(DiskParams::from(&nonsense).logical_block_bytes, 0);
}

#[test]
fn unknown_features_are_shown_as_bits() {
    let features = granted(Features::USER_COPY | Features::from_bits_retain(1 << 63));
    let names: Vec<&str> = features
        .iter()
        .map(|feature| feature.name.as_str())
        .collect();
    assert_eq!(names, ["USER_COPY", "BIT_63"]);
}

#[test]
fn what_the_socket_says_comes_back() {
    let live = Live {
        description: description(),
        metrics: metrics(),
    };
    let text = serde_json::to_vec(&live).unwrap();
    let back: Live = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (back.description, back.metrics),
        (live.description, live.metrics)
    );
}

#[test]
fn a_server_is_who_the_driver_says() {
    let mut driver = DeviceInfo {
        id: DeviceId(3),
        state: DeviceState::Live,
        queues: 1,
        depth: 128,
        max_io_bytes: 1 << 20,
        server_pid: Some(std::process::id()),
        features: Features::empty(),
        owner_uid: 0,
        owner_gid: 0,
    };
    let server = Server::of(Some(&driver), None).unwrap();
    assert!(server.running && server.command.is_some());
    let mut recycled = description();
    recycled.server.pid_start_ticks -= 1;
    let server = Server::of(Some(&driver), Some(&recycled)).unwrap();
    assert!(!server.running, "the pid is another process's now");
    driver.server_pid = None;
    assert_eq!(Server::of(Some(&driver), None), None);
    assert!(Server::of(None, Some(&description())).unwrap().running);
}

#[test]
fn holders_in_words() {
    let say = |pid, usage| {
        let (command, disk) = ("fio".to_owned(), "ublkb3".to_owned());
        HeldBy::from(&Holder {
            pid,
            command,
            disk,
            usage,
        })
        .to_string()
    };
    assert_eq!(
        say(Some(9), Usage::Open),
        "/dev/ublkb3 is open in process 9 (fio)"
    );
    assert_eq!(
        say(None, Usage::Mount("/mnt".into())),
        "/dev/ublkb3 is mounted on /mnt"
    );
    assert_eq!(
        say(Some(9), Usage::Mount("/mnt".into())),
        "/dev/ublkb3 is mounted on /mnt in the namespace of process 9 (fio)"
    );
    assert_eq!(say(None, Usage::Swap), "/dev/ublkb3 is used for swap");
    assert_eq!(
        say(None, Usage::Device("dm-0".into())),
        "/dev/ublkb3 is part of /dev/dm-0 (fio)"
    );
}
