"""A cluster in a VPC that exists makes only what is its own there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.infra import terraform
from tests.infra.terraform import Report

VPC, SUBNETS = "vpc-0123456789abcdef0", {f"subnet-0123456789abcdef{number}" for number in range(3)}
WITHOUT, WITH = "endpoints_of_its_own", "endpoints_of_ours"


@pytest.fixture(scope="module")
def network(code: Path) -> Report:
    return terraform.run_tests(code, "-verbose", "-filter=tests/network.tftest.hcl")


def test_what_cannot_be_a_network_is_refused(network: Report) -> None:
    assert {name: status for name, status in network.status.items() if status != "pass"} == {}, network.diagnostics
    assert {WITHOUT, WITH, "two_subnets_in_one_zone", "a_subnet_of_another_vpc"} <= set(network.status)


@pytest.mark.parametrize("run", [WITHOUT, WITH])
def test_nodes_are_in_its_subnets_and_nothing_of_it_is_made_or_changed(network: Report, run: str) -> None:
    kinds = {resource["type"] for resource in network.every(run) if resource["mode"] == "managed"}
    own = {"vpc", "subnet", "route_table", "route_table_association", "route", "internet_gateway", "nat_gateway", "eip"}
    assert not kinds & {f"aws_{kind}" for kind in (*own, "default_security_group")}
    for group in network.resources(run, "aws_autoscaling_group"):
        assert set(group["vpc_zone_identifier"]) == SUBNETS
    assert {node["subnet_id"] for node in network.resources(run, "aws_instance")} == SUBNETS
    assert {group["vpc_id"] for group in network.resources(run, "aws_security_group")} == {VPC}
    # Others' connections are none of ours to log.
    logs = network.resources(run, "aws_flow_log")
    assert ({log["subnet_id"] for log in logs}, {log["vpc_id"] for log in logs}) == (SUBNETS, {None})


def test_nodes_reach_aws_through_endpoints_that_are_there(network: Report) -> None:
    assert network.resources(WITHOUT, "aws_vpc_endpoint") == []
    rules = network.resources(WITHOUT, "aws_vpc_security_group_egress_rule")
    addresses = [(rule["cidr_ipv4"], rule["from_port"], rule["to_port"]) for rule in rules if rule["cidr_ipv4"]]
    assert addresses == [("10.20.0.0/16", 443, 443)] * 3
    assert len([rule for rule in rules if rule["prefix_list_id"]]) == 3
    assert all(rule["cidr_ipv4"] is None for rule in network.resources(WITHOUT, "aws_vpc_security_group_ingress_rule"))


def test_endpoints_of_ours_are_made_in_it(network: Report) -> None:
    endpoints = network.resources(WITH, "aws_vpc_endpoint")
    assert {endpoint["vpc_id"] for endpoint in endpoints} == {VPC}
    kinds = [endpoint["vpc_endpoint_type"] for endpoint in endpoints]
    assert (kinds.count("Gateway"), kinds.count("Interface")) == (1, 7)
    assert all(set(endpoint["subnet_ids"]) == SUBNETS for endpoint in endpoints if endpoint["subnet_ids"])
    assert [rule for rule in network.resources(WITH, "aws_vpc_security_group_egress_rule") if rule["cidr_ipv4"]] == []
