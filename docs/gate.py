"""A gate controller: one frame in, open or not out."""

import sys

import grpc
from grpc_status import rpc_status

from assent.v1 import gate_pb2, gate_pb2_grpc, types_pb2


def decide(gate, gate_id, frame, deadline_s=1.0):
    """Asks once: (match or None, other ways in)."""
    request = gate_pb2.VerifyRequest(
        gate_id=gate_id,
        intent=gate_pb2.INTENT_BUTTON,  # the person pressed the button
        encoded=types_pb2.EncodedFrame(data=frame),
    )
    try:
        answer = gate.Verify(request, timeout=deadline_s)
    except grpc.RpcError as refusal:
        return None, alternatives(refusal)
    if answer.decision == gate_pb2.DECISION_MATCH:
        return answer.match, answer.alternatives
    return None, answer.alternatives


def alternatives(refusal):
    """The ways in that a refusal names; empty when the service cannot be reached."""
    found = types_pb2.Alternatives()
    status = rpc_status.from_call(refusal)
    for detail in status.details if status else ():
        if detail.Unpack(found):
            break
    return found.alternatives


def main(address, gate_id, photo, deadline_s=1.0):
    with open(photo, "rb") as file:
        frame = file.read()
    with grpc.insecure_channel(address) as channel:
        gate = gate_pb2_grpc.GateStub(channel)
        match, ways = decide(gate, gate_id, frame, float(deadline_s))
    if match:
        print(f"open for {match.subject_ref}, covered by {match.consent_tag.consent_id}")
    else:
        names = [types_pb2.AlternativeMethod.Name(way.method) for way in ways]
        print("stay closed; other ways in:", ", ".join(names))


if __name__ == "__main__":
    main(*sys.argv[1:])
