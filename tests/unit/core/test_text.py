from quadrat.core.text import aligned


def test_rows_become_lines_with_columns_of_one_width_each():
    assert aligned([["a", "b"], ["cc", ""]]) == ["a   b", "cc"]
    assert aligned([]) == []
