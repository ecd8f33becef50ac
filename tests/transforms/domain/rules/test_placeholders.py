from __future__ import annotations

from typing import Any

import pytest

from transforms.domain.rules.placeholders import Placeholder, check, foreign, parts_of, placeholders_of, problems


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("${event.a}", (Placeholder("event.a"),)),
        ("Hi ${user.name}, ${visit.page_count} pages", ("Hi ", "user.name", ", ", "visit.page_count", " pages")),
        ("$${event.price}", ("$", "event.price")),
        ("${event.a", ("${event.a",)),
        ("} ${event.a} ${", ("} ", "event.a", " ${")),
    ],
)
def test_a_text_is_literals_and_placeholders(text: str, parts: tuple[Any, ...]) -> None:
    assert tuple(part.path if isinstance(part, Placeholder) else part for part in parts_of(text)) == tuple(
        part.path if isinstance(part, Placeholder) else part for part in parts
    )


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("Event.name", "; did you mean 'event'?"),
        ("userProfile.name", "; did you mean 'user'?"),
        ("local_time.hour", "begun"),
        ("user.name ", '; after user allowed is .name, ["any name"], [1] or [-1], then |default, without spaces'),
        ("history[0].x", "; after history allowed is"),
    ],
)
def test_what_is_no_path_says_what_is(path: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r"is no path of names that begins with one of ") as caught:
        check(Placeholder(path))
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ({"a": "${event.x"}, ("a",), "'${event.x' is not closed, allowed is a placeholder like ${event.event_name}"),
        ({"a": "x ${"}, ("a",), "'${' is not closed"),
        ({"a": "${event.a} and ${user.b and more"}, ("a",), "'${user.b and more' is not closed"),
        ({"a": ["x", {"b": "${user.b"}]}, ("a", 1, "b"), "'${user.b' is not closed"),
        ({"r": "${action.ruel}"}, ("r",), "${action.ruel} has no value; did you mean 'rule'?"),
        ({"r": "${action.x}"}, ("r",), "allowed: action.id, action.name, action.rule, action.version"),
        ({"r": "${action.id.x}"}, ("r",), "${action.id.x} has no value: action.id has no fields"),
        ({"r": "${visit.pages}"}, ("r",), "${visit.pages} has no value; did you mean 'page_count'?"),
        ({"r": "${enrichment.a}"}, ("r",), "${enrichment.a} has no value: enrichment is a text"),
        ({"r": "${history.a}"}, ("r",), "${history.a} has no value: history is a list"),
        ({"r": "${visit[1]}"}, ("r",), "${visit[1]} has no value: visit is no list"),
        ({"r": "${action.ruel|x}"}, ("r",), "${action.ruel} has no value; did you mean 'rule'?"),
        ({"${user.name}": 1}, ("${user.name}",), "the name '${user.name}' has a placeholder"),
        ({"a": {"x ${user.name": 1}}, ("a", "x ${user.name"), "has a placeholder, allowed are placeholders in values"),
        ({"n": float("inf")}, ("n",), "inf is a number that JSON cannot hold"),
        ({"n": [float("nan")]}, ("n", 0), "nan is a number that JSON cannot hold"),
    ],
)
def test_what_is_sent_otherwise_than_meant_is_a_problem(body: Any, path: tuple[str | int, ...], message: str) -> None:
    ((found, text),) = problems(body)
    assert found == path
    assert message in text


def test_placeholders_that_can_have_values_are_none() -> None:
    body = {
        "a": "${event.own_field} ${user.anything.at.all} ${visit} ${history} ${enrichment}",
        "b": "${action.id}${action.name}${action.rule}${action.version} } $ { {x}",
        "c": [1, None, True, 2.5, 10**30, "${visit.visit_id} ${visit.is_first_visit}"],
    }
    assert list(problems(body)) == []
    assert list(foreign(body)) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{event.price}}", "{{event.price}}"),
        ("{{ user.name }}", "{{ user.name }}"),
        ("Hello $user.name!", "$user.name"),
        ("$(event.a)", "$(event.a)"),
        ("#{event.a}", "#{event.a}"),
        ("{event.a}", "{event.a}"),
        ("<%= event.a %>", "<%= event.a %>"),
    ],
)
def test_placeholders_of_other_languages_are_found(text: str, shown: str) -> None:
    assert list(foreign({"a": [text]})) == [(("a", 0), shown)]


@pytest.mark.parametrize("text", ["the event is on", "$5 for users", "{not one}", "user.name", "${event.a"])
def test_texts_that_only_look_alike_are_left_alone(text: str) -> None:
    assert list(foreign(text)) == []


def test_placeholders_have_the_place_of_their_text() -> None:
    body = {"a": [{"b": "x ${event.c} ${user.d.e}"}], "n": 1}
    assert list(placeholders_of(body, ("body",))) == [
        (("body", "a", 0, "b"), Placeholder("event.c")),
        (("body", "a", 0, "b"), Placeholder("user.d.e")),
    ]


def test_a_root_that_is_misspelt_gets_a_hint() -> None:
    with pytest.raises(ValueError, match=r"\$\{evnt\.a\} is no path .*; did you mean 'event'\?"):
        check(Placeholder("evnt.a"))
