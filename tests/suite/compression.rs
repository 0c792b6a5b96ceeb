//! How layers are compressed: the same bytes for everybody, nothing twice, nothing for nothing; readable by others.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
};

use crate::harness::{Image, Kind, Project, need, sha256};

/// Text, noise, a hole and text: several blocks of each kind, none of which ends where a block ends.
fn large() -> Vec<u8> {
    let mut noise = vec![0; 1_300_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let text: Vec<u8> = noise.iter().take(90_000).flat_map(|byte| format!("word{byte} ").into_bytes()).collect();
    [text.clone(), noise, vec![0; 700_001], text].concat()
}

fn project() -> Project {
    let project = Project::new();
    let _dockerfile = project.dockerfile("FROM scratch\nCOPY large /\nCOPY small empty /\n");
    for file in [project.file("large", large()), project.file("small", "small"), project.file("empty", "")] {
        // Layers have the files' times.
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::open(file).and_then(|file| file.set_modified(time)).unwrap();
    }
    project
}

/// Under which compressors each layer is remembered, and the inode of each blob: who writes one anew gives it another.
fn remembered(project: &Project) -> (BTreeMap<String, Vec<String>>, BTreeMap<String, u64>) {
    let names = |dir: &std::path::Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|each| each.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let (layers, blobs) = (project.store().join("layers"), project.store().join("blobs/sha256"));
    let inode = |name: &String| fs::metadata(blobs.join(name)).unwrap().ino();
    let kinds = |layer: &String| names(&layers.join(layer)).iter().map(|name| name.split('-').next().unwrap().to_owned()).collect();
    (
        names(&layers).into_iter().map(|layer| (layer.clone(), kinds(&layer))).collect(),
        names(&blobs).into_iter().map(|blob| (blob.clone(), inode(&blob))).collect(),
    )
}

#[test]
fn a_layer_has_the_same_bytes_with_one_job_and_with_seven() {
    for form in ["gzip", "gzip,compression-level=1", "zstd", "uncompressed"] {
        let digests = ["1", "2", "7"].map(|jobs| {
            let project = project();
            let spec = format!("type=oci,tar=false,dest=out,compression={form}");
            let _built = project.build(&["--jobs", jobs, "-o", &spec]).good();
            let image = Image::of_layout(&project.path("out"));
            let want = large();
            assert_eq!(image.tree()["large"].kind, Kind::File { size: want.len() as u64, sha256: sha256(&want) });
            image.layers.into_iter().map(|layer| (layer.digest, layer.diff_id)).collect::<Vec<_>>()
        });
        assert!(digests[0] == digests[1] && digests[0] == digests[2], "{form}: {digests:?}");
    }
}

#[test]
fn what_all_outputs_want_plain_meets_no_compressor() {
    let project = project();
    let _built = project
        .build(&[
            "-o",
            "type=docker,dest=docker.tar,compression=uncompressed",
            "-o",
            "type=oci,dest=oci.tar,compression=uncompressed",
            "-o",
            "type=local,dest=tree",
        ])
        .good();
    let image = Image::of_docker_archive(&project.path("docker.tar"));
    assert!(image.layers.iter().all(|layer| layer.digest == layer.diff_id));
    assert_eq!(Image::of_layout_tar(&project.path("oci.tar")).config_digest, image.config_digest);
    assert_eq!(fs::read(project.path("tree/large")).unwrap(), large());
    let (layers, _) = remembered(&project);
    assert!(layers.len() == 2 && layers.values().all(|kinds| kinds == &["uncompressed"]), "{layers:?}");
}

#[test]
fn a_layer_is_compressed_once_in_each_way() {
    let project = project();
    let outputs =
        ["-o", "type=oci,dest=a.tar,compression=zstd", "-o", "type=oci,dest=b.tar,compression=uncompressed", "-o", "type=oci,dest=c.tar"];
    let _built = project.build(&outputs).good();
    let first = remembered(&project);
    assert!(first.0.values().all(|kinds| kinds == &["gzip", "uncompressed", "zstd"]), "{first:?}");
    let archives = || ["a.tar", "b.tar", "c.tar"].map(|name| fs::read(project.path(name)).unwrap());
    let written = archives();
    let _again = project.build(&outputs).good();
    let second = remembered(&project);
    assert_eq!(first.0, second.0);
    for (layer, kinds) in &second.0 {
        for kind in kinds {
            let dir = project.store().join("layers").join(layer);
            let file = fs::read_dir(dir)
                .unwrap()
                .map(|each| each.unwrap().path())
                .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(kind.as_str()));
            let text = fs::read_to_string(file.unwrap()).unwrap();
            let blob = text.split("sha256:").nth(1).and_then(|rest| rest.get(..64)).unwrap();
            assert_eq!(first.1[blob], second.1[blob], "the {kind} blob of {layer} was made again");
        }
    }
    assert!(archives() == written);
}

#[test]
fn archives_are_read_by_the_programs_of_the_system() {
    let project = project();
    for (form, program) in [("gzip", "gzip"), ("gzip,compression-level=9", "gzip"), ("zstd", "zstd"), ("zstd,compression-level=19", "zstd")]
    {
        let Some(program) = need(program) else { return };
        let spec = format!("type=oci,tar=false,dest=out,compression={form}");
        let _built = project.build(&["-o", &spec]).good();
        let image = Image::of_layout(&project.path("out"));
        for layer in &image.layers {
            let blob = project.path("out/blobs/sha256").join(layer.digest.strip_prefix("sha256:").unwrap());
            let output = Command::new(&program).arg("-dc").stdin(fs::File::open(blob).unwrap()).stderr(Stdio::inherit()).output().unwrap();
            assert!(output.status.success(), "{form}");
            assert_eq!(format!("sha256:{}", sha256(&output.stdout)), layer.diff_id, "{form}");
        }
        fs::remove_dir_all(project.path("out")).unwrap();
    }
}

#[test]
fn a_level_that_a_compression_does_not_have_is_refused() {
    let project = project();
    for (spec, words) in [
        ("gzip,compression-level=10", "0 to 9"),
        ("zstd,compression-level=23", "0 to 22"),
        ("uncompressed,compression-level=1", "no meaning"),
    ] {
        let spec = format!("type=oci,dest=out,compression={spec}");
        let _refused = project.build(&["-o", &spec]).ends_with(2).says(&[words]);
    }
}
