"""The table of `states` as a picture, in Mermaid's notation for state diagrams; SPEC.md contains what this gives."""

from __future__ import annotations

from securekd_protocols.states import CLIENT_STEPS, SERVER_STEPS, ClientState, GraphKind, ServerState, Stage


def client_diagram() -> str:
    """The client's states; a refused invitation leaves it invited, every later violation ends the session."""
    lines = ["stateDiagram-v2", f"    [*] --> {ClientState.INVITED.value}"]
    for step in CLIENT_STEPS:
        lines.append(
            f"    {step.state.value} --> {step.then.value}: "
            f"reads {step.reads.name}, sends {step.sends.name}{_only(step.only)}"
        )
    lines += [f"    {step.state.value} --> {ClientState.ABORTED.value}" for step in CLIENT_STEPS[2:]]
    return "\n".join([*lines, f"    {ClientState.UNMASKED.value} --> [*]"])


def server_diagram() -> str:
    """The server's states; what is refused changes nothing, and a stage that can not be closed ends the session."""
    lines = ["stateDiagram-v2"]
    for state in ServerState:
        lines.append(f'    state "{state.value}" as {state.name}')
    first = {GraphKind.REGULAR: ServerState.COMMITMENTS, GraphKind.COMPLETE: ServerState.KEYS}
    lines += [f"    [*] --> {state.name}: {kind.value}" for kind, state in first.items()]
    for step in SERVER_STEPS:
        sends = f", sends {step.sends.name}" if step.sends is not None else ""
        lines.append(
            f"    {step.state.name} --> {step.then.name}: "
            f"collects {step.collects.name}{sends} ({_stage(step.stage)}){_only(step.only)}"
        )
    lines += [f"    {step.state.name} --> {ServerState.ABORTED.name}" for step in SERVER_STEPS]
    return "\n".join([*lines, f"    {ServerState.FINISHED.name} --> [*]"])


def _stage(stage: Stage) -> str:
    return stage.value.replace("_", " ")


def _only(kind: GraphKind | None) -> str:
    return "" if kind is None else f", {kind.value} only"
