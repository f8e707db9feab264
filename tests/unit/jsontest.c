/*
 * jsontest.c: JSON comes back as it was, and hostile text is refused
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include "checkpoint_error.h"
#include "checkpoint_json.h"

#include <string.h>

static void
testJsonRoundTrip(void)
{
    const gchar *const texts[] = {
        "null",
        "true",
        "[]",
        "{}",
        "-0.5e10",
        "18446744073709551615",
        "[1,[2,{\"a\":null}],\"\"]",
        "{\"b\":1,\"a\":[true,false],\"\xc3\xa9\":\"\xf0\x9f\x98\x80\"}",
        "\"\\u0001\\\"\\\\/\"",
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(virCheckpointJson) value =
            virCheckpointJsonParse(texts[i], -1, &error);
        g_autoptr(virCheckpointJson) copy = virCheckpointJsonCopy(value);
        g_autofree gchar *text = NULL;

        g_assert_no_error(error);
        g_clear_pointer(&value, virCheckpointJsonFree);
        text = virCheckpointJsonFormat(copy);
        g_assert_cmpstr(text, ==, texts[i]);
    }
}

static void
testJsonRefused(void)
{
    const gchar *const texts[] = {
        "",
        "  ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{} {}",
        "01",
        "1 2",
        "nul",
        "'a'",
        "\"a\nb\"",
        "\"\xff\"",
        "\"\xc0\xaf\"",
        "\"\xed\xa0\x80",
        "[1}",
        "{\"a\" 1}",
        "\"\\u0000\"",
        "{\"\\u0000\":1}",
        "\"\\x\"",
        "NaN",
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(virCheckpointJsonParse(texts[i], -1, &error));
        g_assert_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_INTERNAL_ERROR);
        g_assert_nonnull(strstr(error->message, "at byte "));
    }
    g_assert_null(virCheckpointJsonParse("1\0", 2, NULL));
}

static gchar *
testJsonNested(gsize depth, gboolean closed)
{
    GString *text = g_string_new(NULL);
    gsize i;

    for (i = 0; i < depth; i++)
        g_string_append(text, i % 2 ? "{\"a\":" : "[");
    if (!closed)
        return g_string_free(text, FALSE);
    g_string_append(text, "1");
    for (i = depth; i > 0; i--)
        g_string_append(text, (i - 1) % 2 ? "}" : "]");
    return g_string_free(text, FALSE);
}

static void
testJsonDepth(void)
{
    g_autofree gchar *good = testJsonNested(VIR_CHECKPOINT_JSON_MAX_DEPTH, TRUE);
    g_autofree gchar *bad = testJsonNested(VIR_CHECKPOINT_JSON_MAX_DEPTH + 1, TRUE);
    g_autofree gchar *bomb = testJsonNested(1000 * 1000, FALSE);
    g_autoptr(GError) error = NULL;
    g_autoptr(virCheckpointJson) value = virCheckpointJsonParse(good, -1, &error);

    g_assert_no_error(error);
    g_assert_nonnull(value);
    g_assert_null(virCheckpointJsonParse(bad, -1, &error));
    g_assert_nonnull(strstr(error->message, "too deeply nested"));
    g_clear_error(&error);
    g_assert_null(virCheckpointJsonParse(bomb, -1, &error));
    g_assert_nonnull(strstr(error->message, "too deeply nested"));
}

static void
testJsonNumbers(void)
{
    g_autoptr(virCheckpointJson) value = virCheckpointJsonParse(
        "{\"max\":18446744073709551615,\"over\":18446744073709551616,"
        "\"min\":-9223372036854775808,\"frac\":1.5,\"exp\":1e3,"
        "\"text\":\"1\"}",
        -1, NULL);
    guint64 u = 7;
    gint64 i = 7;

    g_assert_nonnull(value);
    g_assert_false(virCheckpointJsonGetUint64(value, "over", &u));
    g_assert_false(virCheckpointJsonGetUint64(value, "min", &u));
    g_assert_false(virCheckpointJsonGetUint64(value, "frac", &u));
    g_assert_false(virCheckpointJsonGetUint64(value, "exp", &u));
    g_assert_false(virCheckpointJsonGetUint64(value, "text", &u));
    g_assert_false(virCheckpointJsonGetUint64(value, "none", &u));
    g_assert_false(virCheckpointJsonGetInt64(value, "max", &i));
    g_assert_cmpuint(u, ==, 7);
    g_assert_cmpint(i, ==, 7);
    g_assert_true(virCheckpointJsonGetUint64(value, "max", &u));
    g_assert_cmpuint(u, ==, G_MAXUINT64);
    g_assert_true(virCheckpointJsonGetInt64(value, "min", &i));
    g_assert_cmpint(i, ==, G_MININT64);
}

static void
testJsonReading(void)
{
    g_autoptr(virCheckpointJson) value =
        virCheckpointJsonParse("{\"a\":{\"b-c\":{\"d\":\"x\"}},\"l\":[1,\"y\"],\"t\":"
                               "true,\"k\":1,\"k\":\"2\"}",
                               -1, NULL);
    const virCheckpointJson *list = virCheckpointJsonGet(value, "l");

    g_assert_cmpstr(virCheckpointJsonString(virCheckpointJsonPath(value, "a.b-c.d")),
                    ==, "x");
    g_assert_null(virCheckpointJsonPath(value, "a.none.d"));
    g_assert_cmpuint(virCheckpointJsonLength(list), ==, 2);
    g_assert_cmpstr(virCheckpointJsonString(virCheckpointJsonIndex(list, 1)), ==, "y");
    g_assert_null(virCheckpointJsonIndex(list, 2));
    g_assert_null(virCheckpointJsonIndex(value, 0));
    g_assert_cmpstr(virCheckpointJsonKey(value, 1), ==, "l");
    g_assert_null(virCheckpointJsonKey(value, 5));
    g_assert_true(virCheckpointJsonMember(value, 1) == list);
    g_assert_true(virCheckpointJsonGetBoolean(value, "t", FALSE));
    g_assert_true(virCheckpointJsonGetBoolean(value, "k", TRUE));
    /* A key that occurs twice: the last one. */
    g_assert_cmpstr(virCheckpointJsonGetString(value, "k"), ==, "2");
    /* Nothing in nothing. */
    g_assert_null(virCheckpointJsonGet(NULL, "a"));
    g_assert_cmpuint(virCheckpointJsonLength(NULL), ==, 0);
    g_assert_null(virCheckpointJsonGetString(list, "a"));
    g_assert_cmpint(virCheckpointJsonGetType(NULL), ==, VIR_CHECKPOINT_JSON_NULL);
}

static void
testJsonBuilding(void)
{
    virCheckpointJson *list = virCheckpointJsonNewArray();
    g_autoptr(virCheckpointJson) value = NULL;
    g_autofree gchar *text = NULL;

    virCheckpointJsonAppend(list, virCheckpointJsonNewString("a\"b\n"));
    virCheckpointJsonAppend(list, virCheckpointJsonNewUint64(G_MAXUINT64));
    virCheckpointJsonAppend(list, virCheckpointJsonNewInt64(G_MININT64));
    value = virCheckpointJsonBuild("s:name", "x\xff", "s:none", NULL, "b:flag", TRUE,
                                   "u:size", G_GUINT64_CONSTANT(1) << 40, "i:delta",
                                   G_GINT64_CONSTANT(-1), "a:list", list, "a:nothing",
                                   NULL, NULL);
    text = virCheckpointJsonFormat(value);
    g_assert_cmpstr(text, ==,
                    "{\"name\":\"x\xef\xbf\xbd\",\"flag\":true,\"size\":1099511627776,"
                    "\"delta\":-1,\"list\":[\"a\\\"b\\u000a\",18446744073709551615,"
                    "-9223372036854775808]}");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json/round-trip", testJsonRoundTrip);
    g_test_add_func("/json/malformed-is-refused", testJsonRefused);
    g_test_add_func("/json/depth-is-bounded", testJsonDepth);
    g_test_add_func("/json/numbers-are-exact", testJsonNumbers);
    g_test_add_func("/json/reading", testJsonReading);
    g_test_add_func("/json/building", testJsonBuilding);
    return g_test_run();
}
