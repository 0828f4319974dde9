"""The `vaecourse` command: each verb is a thin wrapper over a function elsewhere."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from vaecourse.grading.marks import Mark

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="A course on variational auto-encoders: train its models, release and grade its work.",
)
console = Console()


@app.command(
    epilog="Example: [bold]vaecourse train vae --data mnist5k --out runs/vae[/bold]",
)
def train(
    model: Annotated[str, typer.Argument(help="vae, cvae, or baseline (no latent).")],
    out: Annotated[Path, typer.Option(help="Folder for weights, scores and pictures.")],
    data: Annotated[str, typer.Option(help="mnist, mnist5k or digits8.")] = "mnist5k",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 128,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of weights, order and draws.")] = 0,
    latent_dim: Annotated[int, typer.Option(help="Dimension of the code z.")] = 20,
    mask: Annotated[
        str | None,
        typer.Option(help="What the cvae sees: column (if not given) or quadrants-1, -2, -3."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without progress.")
    ] = None,
) -> None:
    """Train a model; a run that was cut off goes on from where it was."""
    from vaecourse.experiment import run

    scores = run(
        model=model,
        data=data,
        device=device,
        out=out,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        latent_dim=latent_dim,
        mask=mask,
        patience=patience,
        progress=True,
    )
    for name, score in scores.items():
        console.print(f"test {name.replace('_', '-')}: {score} nats an image")
    console.print(f"weights, scores and pictures: {out}")


Assignments = Annotated[
    list[str] | None, typer.Argument(help="Assignments, such as kl; all if none is named.")
]
Students = Annotated[
    list[str] | None, typer.Option("--student", help="Only this student; may be repeated.")
]


@app.command(epilog="Example: [bold]vaecourse release kl[/bold]")
def release(assignments: Assignments = None) -> None:
    """Make the students' notebooks from solutions/, and prove them."""
    from vaecourse.grading.release import release

    with console.status("making and proving releases"):
        releases = release(assignments=assignments or [])
    for made in releases:
        news = "" if made.fresh else " (unchanged)"
        console.print(
            f"{made.assignment}: {made.questions} questions, {made.points:g} points, "
            f"{_short(made.path)}{news}",
            highlight=False,
        )


@app.command(epilog="Example: [bold]vaecourse sample kl[/bold]")
def sample(assignments: Assignments = None) -> None:
    """Hand in a sample class's notebooks, to see grading at work."""
    from vaecourse.grading.sample import sample

    with console.status("handing in"):
        notebooks = sample(assignments=assignments or [])
    console.print(f"{len(notebooks)} sample submissions in _course/submitted")


@app.command(epilog="Example: [bold]vaecourse grade kl --student ada[/bold]")
def grade(
    assignments: Assignments = None,
    student: Students = None,
    regrade: Annotated[bool, typer.Option(help="Run unchanged submissions again.")] = False,
) -> None:
    """Grade what is in _course/submitted and show the marks.

    The exit code is 1 if a submission could not be marked; all others are.

    Students' code runs with your rights and without a sandbox: grade work of people you do not
    trust only in a container or a spare account.
    """
    from vaecourse.grading.grade import grade

    with console.status("grading") as status:
        marks = grade(
            assignments=assignments or [],
            students=student or [],
            regrade=regrade,
            on_mark=lambda name, who, state: status.update(f"grading {name}: {who}, {state}"),
        )
    for assignment in dict.fromkeys(mark.assignment for mark in marks):
        console.print(_marks_table([mark for mark in marks if mark.assignment == assignment]))
    for mark in marks:
        if mark.message:
            console.print(f"{mark.student}: {mark.message}", highlight=False)
    if any(mark.score is None and mark.state != "no submission" for mark in marks):
        raise typer.Exit(1)


def _marks_table(marks: "list[Mark]") -> Table:
    rows = [_by_question(mark) for mark in marks]
    questions = sorted({question for row in rows for question in row})
    table = Table(title=f"Marks for {marks[0].assignment}", title_justify="left", box=None)
    table.add_column("student", no_wrap=True)
    for name in (*questions, "total"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for mark, row in zip(marks, rows, strict=True):
        cells = [f"{row[question]:g}" if question in row else "" for question in questions]
        total = "" if mark.score is None else f"{mark.score:g}/{mark.max_score:g}"
        state = f"{mark.state}, {mark.to_mark} to mark by hand" if mark.to_mark else mark.state
        table.add_row(mark.student, *cells, total, state)
    return table


def _by_question(mark: "Mark") -> dict[str, float]:
    # grade ids start with their question's number: q1-value and q1-batch are parts of q1
    totals: dict[str, float] = {}
    for name, earned in mark.questions.items():
        if earned is not None:
            question = name.split("-")[0]
            totals[question] = totals.get(question, 0) + earned
    return totals


@app.command(epilog="Example: [bold]vaecourse feedback kl[/bold]")
def feedback(assignments: Assignments = None, student: Students = None) -> None:
    """Write a page for each graded student: notebook, marks and comments."""
    from vaecourse.grading.feedback import feedback

    with console.status("writing feedback"):
        pages = feedback(assignments=assignments or [], students=student or [])
    console.print(f"{len(pages)} feedback pages, such as {_short(pages[0])}", highlight=False)


@app.command(epilog="Example: [bold]vaecourse export --to marks.csv[/bold]")
def export(
    assignments: Assignments = None,
    student: Students = None,
    to: Annotated[
        Path | None, typer.Option(help="CSV file; _course/marks.csv if not given.")
    ] = None,
) -> None:
    """Write the marks of all enrolled students to a CSV file."""
    from vaecourse.grading.export import export

    path = export(assignments=assignments or [], students=student or [], to=to)
    console.print(f"marks: {_short(path)}", highlight=False)


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


@app.command(epilog="Example: [bold]vaecourse doctor[/bold]")
def doctor() -> None:
    """Say what is installed, which device, data and sandbox there are, and what to mend."""
    from vaecourse.doctor import doctor

    table = Table("", "found", "what to do", box=None)
    for check in doctor():
        table.add_row(check.name, check.found, check.mend or "")
    console.print(table)


def main() -> None:
    """Run the command; a user's mistake ends in one sentence and exit code 1."""
    from vaecourse.errors import CourseError

    try:
        app()
    except CourseError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("nbgrader", "jupytext", "nbformat", "nbclient"):
            raise
        _fail("Grading needs more packages: pip install 'vaecourse[grade]'.")


def _fail(sentence: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print("[red]vaecourse:[/red]", escape(sentence))
    sys.exit(1)


if __name__ == "__main__":
    main()
