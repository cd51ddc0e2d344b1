//! `pipe init`: a project that is valid and runs, and nothing of the user's is touched.

use crate::project::Project;

#[test]
fn each_template_is_a_valid_project() {
    for (template, file) in
        [("base", "base_training"), ("chain", "base_to_lora"), ("folder", "image_folder")]
    {
        let project = Project::new();
        let ended = project.pipe(&["init", "new", "--template", template]).succeeds();
        let file = format!("pipelines/{file}.yaml");
        ended.says(&format!("next: cd new && pipe run {file}"));
        let mut check = project.command(&["check", &file]);
        let output = check.current_dir(project.path("new")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The line for editors leads to a file that is there.
        let text = project.read(&format!("new/{file}"));
        assert!(
            text.starts_with("# yaml-language-server: $schema=../schemas/pipeline.schema.json")
        );
        assert!(project.list("new/schemas").contains(&"pipeline.schema.json".to_owned()));
        project.pipe(&["init", "new", "--template", template]).succeeds();
    }
}

#[test]
fn files_that_are_there_stay() {
    let project = Project::new();
    project.write(".gitignore", "mine\n");
    project.write("pipelines/base_training.yaml", "mine\n");
    project.pipe(&["init"]).exits(2).says("pipelines/base_training.yaml").says("move them away");
    assert_eq!(project.list("configs"), [""; 0]);
    project
        .pipe(&["init", "--template", "chain"])
        .succeeds()
        .says("next: pipe run pipelines/base_to_lora.yaml");
    assert_eq!(project.read(".gitignore"), "mine\n");
    assert_eq!(project.read("pipelines/base_training.yaml"), "mine\n");
}

#[test]
fn a_new_project_trains_on_its_users_images() {
    let project = Project::new();
    project.pipe(&["init", "--template", "chain"]).succeeds();
    for (class, shade) in [("cats", 40), ("dogs", 200)] {
        for i in 0..8u8 {
            let path = project.path(&format!("data/pets/{class}/{i}.png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::from_pixel(20, 16, image::Rgb([shade, 10 * i, 90]))
                .save(path)
                .unwrap();
        }
    }
    let tiny = "base.model={ dim: 16, mults: [1, 2], depths: [1, 1], heads: 2, window: 4 }";
    let sets = [
        "lora_source=image_folder",
        "lora_root=data/pets",
        "base_epochs=1",
        "lora_epochs=1",
        "image_size=8",
        "data.num_images=32",
        "lora.batch_size=8",
        "lora_samples.n=4",
        "base_samples.n=3",
        tiny,
    ];
    let mut arguments = vec!["run", "pipelines/base_to_lora.yaml"];
    sets.iter().for_each(|set| arguments.extend(["--set", *set]));
    project.pipe(&arguments).succeeds().says("LoRA Fine-tuning - Run 001");
    assert!(image::open(project.path("samples/lora.png")).is_ok());
}
