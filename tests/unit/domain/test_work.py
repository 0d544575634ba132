from harness.collecting import every_case
from mpesa_gateway.domain.work import Work, WorkKind


@every_case("kind", list(WorkKind))
def test_a_kind_of_work_travels_as_its_word(kind):
    assert WorkKind(str(kind)) is kind


def test_the_same_work_twice_is_one():
    assert {Work(WorkKind.PUSH, 1), Work(WorkKind.PUSH, 1), Work(WorkKind.QUERY, 1)} == {
        Work(WorkKind.PUSH, 1),
        Work(WorkKind.QUERY, 1),
    }
