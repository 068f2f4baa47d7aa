"""What was just made is waited for, for a while; what is wrong for another reason is told at once."""

from __future__ import annotations

import pytest
from google.api_core import exceptions

from fsd_emulators.gcp.management import Management
from fsd_gcp.deploy.settling import Settling, is_of_new_account, is_of_new_builder
from fsdcore.clock import SYSTEM_CLOCK
from fsdcore.errors import AccessDeniedError, FsdError
from fsdcore.testing.clock import VirtualClock
from tests.backends.gcp.deploy.conftest import BackendMaker
from tests.backends.gcp.deploy.test_callers import Heard

OURS, OTHER = "fsd-demo@p.iam.gserviceaccount.com", "ci@p.iam.gserviceaccount.com"
POLICY = f"POST https://iam.googleapis.com/v1/projects/p/serviceAccounts/{OURS}:setIamPolicy: "
HIDDEN = "Permission 'iam.serviceaccounts.actAs' denied on service account {} (or it may not exist)."
DISABLED = "API x has not been used in project p before or it is disabled. permission"


@pytest.mark.parametrize(
    ("error", "passes", "passes_of_new"),
    [
        (exceptions.BadRequest(f"Service account {OURS} does not exist."), True, True),
        (exceptions.NotFound(f"Could not create it. Service account {OURS} does not exist"), True, True),
        (exceptions.BadRequest(f"Service account {OTHER} does not exist."), False, False),
        (exceptions.BadRequest(f"Service account x-{OURS} does not exist."), False, False),
        # The address of what is asked says nothing of who is missing.
        (exceptions.BadRequest(f"{POLICY}User ann@exmple.com does not exist."), False, False),
        (exceptions.BadRequest(f"{POLICY}Service account {OURS} does not exist."), True, True),
        (exceptions.Forbidden(HIDDEN.format(OURS)), False, True),
        (exceptions.Forbidden(HIDDEN.format(OTHER)), False, False),
        (exceptions.Forbidden(f"{POLICY}The caller does not have permission"), False, False),
    ],
)
def test_which_refusals_are_because_our_account_is_new(
    error: exceptions.GoogleAPICallError, passes: bool, passes_of_new: bool
) -> None:
    assert [Settling(OURS).is_unknown(error, new) for new in (False, True)] == [passes, passes_of_new]


def test_which_refusals_new_accounts_and_their_builds_meet() -> None:
    hidden, denied = exceptions.Forbidden("denied on resource (or it may not exist)."), exceptions.Forbidden("No.")
    assert [is_of_new_account(hidden, new) for new in (True, False)] == [True, False]
    assert not is_of_new_account(denied, new=True)
    failed = exceptions.InvalidArgument("Build failed: missing permission on the build service account")
    assert [is_of_new_builder(failed, new) for new in (True, False)] == [True, False]
    assert not is_of_new_builder(exceptions.InvalidArgument("Build failed: no module named main"), new=True)
    assert not is_of_new_builder(exceptions.Forbidden(DISABLED), new=True)


def test_it_ends_after_two_minutes() -> None:
    clock, heard, begun = VirtualClock(), Heard(), list[float]()
    settling = Settling(OURS, observer=heard, clock=clock)

    def refused() -> None:
        begun.append(clock.now())
        raise exceptions.BadRequest(f"Service account {OURS} does not exist.")

    with pytest.raises(exceptions.BadRequest):
        settling.repeat(refused, settling.is_unknown)
    assert (begun[0], begun[-1]) == (0.0, 120.0)
    assert heard.waits == len(begun) - 1


def test_what_takes_long_is_repeated_if_it_was_begun_while_something_was_new() -> None:
    clock, news = VirtualClock(), list[bool]()
    settling = Settling(OURS, clock=clock)
    settling.began()

    def build() -> None:
        clock.sleep(100.0)
        raise exceptions.InvalidArgument("denied")

    def passes(error: exceptions.GoogleAPICallError, new: bool) -> bool:
        news.append(new)
        return is_of_new_builder(error, new)

    with pytest.raises(exceptions.InvalidArgument):
        settling.repeat(build, passes)
    # The second begins after 100.25 seconds, and ends when nothing is new any more; the third is the last.
    assert (news, clock.now()) == ([True, True], 300.25)


def test_nothing_is_new_before_anything_was_made() -> None:
    clock = VirtualClock()
    settling = Settling(OURS, clock=clock)

    def refused() -> None:
        raise exceptions.Forbidden(HIDDEN.format(OURS))

    with pytest.raises(exceptions.Forbidden):
        settling.repeat(refused, settling.is_unknown)
    assert clock.now() == 0.0


# On local Google Cloud, with a deploy as it is -----------------------------------------------------------------


def test_accounts_that_are_not_known_at_once_are_waited_for(make_backend: BackendMaker, management: Management) -> None:
    backend = make_backend(callers="user:ann@example.com")
    management.unknown_seconds = 1.5
    backend.observer = heard = Heard()
    assert backend.provisioner().deploy(2).ready
    assert heard.waits


def test_the_right_to_act_as_new_accounts_is_waited_for(make_backend: BackendMaker, management: Management) -> None:
    backend = make_backend()
    management.act_as_refusals = 2
    backend.observer = heard = Heard()
    assert backend.provisioner().deploy(1).ready
    assert (management.act_as_refusals, heard.waits) == (0, 3)


def test_who_may_not_act_as_accounts_that_have_been_there_is_told_at_once(
    make_backend: BackendMaker, management: Management
) -> None:
    make_backend().provisioner().deploy(1)
    backend = make_backend(memory_mb=512)
    backend.observer = heard = Heard()
    management.act_as_refusals = 1
    with pytest.raises(AccessDeniedError, match=r"deploying the function fsd-demo: no permission: .*actAs"):
        backend.provisioner().deploy(1)
    assert heard.waits == 0


class MendsRoles(Heard):
    """Has roles in force as soon as it hears that something is waited for."""

    def __init__(self, management: Management) -> None:
        super().__init__()
        self._management = management

    def progress(self, task: str, done: int, total: int) -> None:
        super().progress(task, done, total)
        if self.waits:
            self._management.roles_late_until = 0.0


def test_a_build_whose_account_has_just_got_its_roles_is_repeated(
    make_backend: BackendMaker, management: Management
) -> None:
    backend = make_backend()
    management.roles_late_until = SYSTEM_CLOCK.wall() + 3_600.0
    backend.observer = heard = MendsRoles(management)
    assert backend.provisioner().deploy(1).ready
    assert heard.tasks.count("uploading") > 2


def test_a_build_by_an_account_of_others_is_not_repeated(make_backend: BackendMaker, management: Management) -> None:
    email = "builds@other.iam.gserviceaccount.com"
    management.accounts[email] = {"name": f"projects/other/serviceAccounts/{email}", "uniqueId": "1"}
    backend = make_backend(build_account=email)
    backend.observer = heard = Heard()
    with pytest.raises(FsdError, match=f"Build failed: The service account {email} does not have roles"):
        backend.provisioner().deploy(1)
    assert heard.waits == 0
