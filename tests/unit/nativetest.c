/*
 * nativetest.c: dialects of QEMU's bitmap mirror, and what each refuses
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The schemas in nativedata are excerpts: blockdev-mirror, its arguments and what they
 * refer to, with type names as a build may number them.  The peer refuses what the
 * patches refuse, in their order, and "dies" where they die.
 */

#include "config.h"

#include <glib/gstdio.h>
#include <string.h>

#include "checkpoint_error.h"
#include "checkpoint_native.h"

#define CLUSTER 65536

static virCheckpointJson *
testLoad(const gchar *name)
{
    g_autofree gchar *path =
        g_build_filename(g_getenv("TEST_DATA"), "nativedata", name, NULL);
    g_autofree gchar *text = NULL;
    g_autoptr(GError) error = NULL;
    virCheckpointJson *json;

    g_file_get_contents(path, &text, NULL, &error);
    g_assert_no_error(error);
    json = virCheckpointJsonParse(text, -1, &error);
    g_assert_no_error(error);
    return json;
}

static void
testDialects(void)
{
    g_autoptr(virCheckpointJson) cases = testLoad("schemas.json");
    gsize i;

    g_assert_cmpuint(virCheckpointJsonLength(cases), ==, 10);
    for (i = 0; i < virCheckpointJsonLength(cases); i++) {
        const virCheckpointJson *one = virCheckpointJsonMember(cases, i);

        g_test_message("%s", virCheckpointJsonKey(cases, i));
        g_assert_cmpstr(virCheckpointNativeDialectToString(virCheckpointNativeDetect(
                            virCheckpointJsonGet(one, "schema"))),
                        ==, virCheckpointJsonGetString(one, "dialect"));
    }
}

/* One combination of QEMU, bitmap and target. */
typedef struct TestQemu {
    const gchar *kind; /* "modes", "dead", "v2" and "v4" of the posted series */
    gboolean busy;
    gboolean inconsistent;
    gboolean recording;
    gboolean readOnly;
    guint64 granularity;
    const gchar *driver;
    guint64 cluster; /* 0: not shown */
    gboolean closed; /* goes away at the command */

    guint commands; /* blockdev-mirror, seen */
    gboolean job;
} TestQemu;

static virCheckpointNativeDialect
testDialect(const TestQemu *qemu)
{
    return qemu->kind[0] == 'v' ? VIR_CHECKPOINT_NATIVE_WORKING
                                : VIR_CHECKPOINT_NATIVE_MODES;
}

/* Why the series refuses the call, or NULL. */
static const gchar *
testRefusalModes(const TestQemu *qemu, const virCheckpointJson *arguments)
{
    const gchar *mode = virCheckpointJsonGetString(arguments, "bitmap-mode");

    if (g_str_equal(qemu->kind, "dead"))
        return "must provide a valid bitmap name";
    if (g_strcmp0(virCheckpointJsonGetString(arguments, "sync"), "bitmap") != 0)
        return "sync mode not supported with bitmap";
    if (virCheckpointJsonGet(arguments, "granularity"))
        return "granularity and bitmap cannot both be set";
    if (!mode)
        return "bitmap sync mode must be given";
    if (qemu->busy)
        return "bitmap is in use";
    if (qemu->inconsistent)
        return "bitmap is inconsistent";
    return qemu->readOnly && !g_str_equal(mode, "never") ? "bitmap is readonly" : NULL;
}

static const gchar *
testRefusalWorking(const TestQemu *qemu, const virCheckpointJson *arguments)
{
    gboolean strict = g_str_equal(qemu->kind, "v4");

    if (virCheckpointJsonGet(arguments, "bitmap-mode"))
        return "parameter 'bitmap-mode' is unexpected";
    if (g_strcmp0(virCheckpointJsonGetString(arguments, "sync"), "full") != 0)
        return "sync mode not supported with bitmap";
    if (virCheckpointJsonGet(arguments, "granularity"))
        return "granularity and bitmap cannot both be set";
    if (!g_str_equal(qemu->driver, "nbd")) {
        g_assert_cmpuint(qemu->cluster, >, 0); /* a division: QEMU is dead */
        if (qemu->granularity % qemu->cluster != 0)
            return "not a multiple of the cluster size";
    }
    if (qemu->busy)
        return "bitmap is in use";
    if (qemu->inconsistent)
        return "bitmap is inconsistent";
    /* Version 2 takes these two, and leaves a disabled bitmap enabled. */
    g_assert_true(strict || (!qemu->readOnly && qemu->recording));
    return qemu->readOnly ? "bitmap is readonly"
                          : (qemu->recording ? NULL : "bitmap is not enabled");
}

static gchar *
testNodes(const TestQemu *qemu)
{
    return g_strdup_printf(
        "{\"return\":[{\"node-name\":\"src\",\"drv\":\"qcow2\",\"ro\":%s,\"file\":\"/"
        "s\","
        "\"image\":{\"filename\":\"/s\",\"format\":\"qcow2\",\"virtual-size\":1048576,"
        "\"cluster-size\":65536},\"dirty-bitmaps\":[{\"name\":\"work\",\"count\":65536,"
        "\"granularity\":%" G_GUINT64_FORMAT ",\"recording\":%s,\"busy\":%s,"
        "\"persistent\":%s,\"inconsistent\":%s}]},"
        "{\"node-name\":\"dst\",\"drv\":\"%s\",\"ro\":false,\"file\":\"/t\",\"image\":{"
        "\"filename\":\"/"
        "t\",\"format\":\"%s\",\"virtual-size\":1048576%s%" G_GUINT64_FORMAT "}}]}",
        qemu->readOnly ? "true" : "false", qemu->granularity,
        qemu->recording ? "true" : "false", qemu->busy ? "true" : "false",
        qemu->readOnly ? "true" : "false", qemu->inconsistent ? "true" : "false",
        qemu->driver, qemu->driver,
        qemu->cluster ? ",\"cluster-size\":" : ",\"actual-size\":", qemu->cluster);
}

static gchar *
testRun(gpointer data, const gchar *command, GError **error)
{
    TestQemu *qemu = data;
    g_autoptr(virCheckpointJson) message = virCheckpointJsonParse(command, -1, error);
    const gchar *name = virCheckpointJsonGetString(message, "execute");
    const virCheckpointJson *arguments = virCheckpointJsonGet(message, "arguments");
    const gchar *refusal;

    g_assert_nonnull(name);
    if (g_str_equal(name, "query-named-block-nodes"))
        return testNodes(qemu);
    if (g_str_equal(name, "query-block"))
        return g_strdup("{\"return\":[]}");
    if (g_str_equal(name, "x-debug-query-block-graph"))
        return g_strdup("{\"return\":{\"nodes\":[],\"edges\":[]}}");
    g_assert_cmpstr(name, ==, "blockdev-mirror");
    qemu->commands++;
    if (qemu->closed) {
        g_set_error_literal(error, VIR_CHECKPOINT_LIBVIRT_ERROR,
                            VIR_ERR_OPERATION_INVALID, "domain is not running");
        return NULL;
    }
    g_assert_cmpstr(virCheckpointJsonGetString(arguments, "bitmap"), ==, "work");
    refusal = testDialect(qemu) == VIR_CHECKPOINT_NATIVE_MODES
                  ? testRefusalModes(qemu, arguments)
                  : testRefusalWorking(qemu, arguments);
    if (refusal)
        return g_strdup_printf(
            "{\"error\":{\"class\":\"GenericError\",\"desc\":\"%s\"}}", refusal);
    qemu->job = TRUE;
    return g_strdup("{\"return\":{}}");
}

static virCheckpointNativeAnswer
testStart(TestQemu *qemu, gchar **why, GError **error)
{
    static const virCheckpointMonitorOps ops = {.run = testRun};
    g_autoptr(virCheckpointMonitor) monitor =
        virCheckpointMonitorNew(&ops, qemu, "test");
    virCheckpointNativePlan plan = {
        .dialect = testDialect(qemu),
        .job = "job",
        .source = "src",
        .target = "dst",
        .filter = "flt",
        .bitmap = "work",
    };

    return virCheckpointNativeStart(&plan, monitor, why, error);
}

/* Every QEMU with every bitmap and target: it starts, or nothing has happened. */
static void
testOne(const gchar *kind, guint state, const gchar *driver, guint64 cluster)
{
    TestQemu qemu = {
        .kind = kind,
        .busy = state == 1,
        .inconsistent = state == 2,
        .recording = state != 3,
        .readOnly = state == 4,
        .granularity = CLUSTER,
        .driver = driver,
        .cluster = cluster,
    };
    g_autofree gchar *why = NULL;
    g_autoptr(GError) error = NULL;
    gboolean fits = testDialect(&qemu) == VIR_CHECKPOINT_NATIVE_MODES ||
                    g_str_equal(driver, "nbd") ||
                    (g_str_equal(driver, "qcow2") && CLUSTER % cluster == 0);
    virCheckpointNativeAnswer answer = testStart(&qemu, &why, &error);

    g_test_message("%s state %u %s %" G_GUINT64_FORMAT ": %s", kind, state, driver,
                   cluster, why ? why : "started");
    g_assert_no_error(error);
    g_assert_cmpint(answer, ==,
                    state != 0 || !fits         ? VIR_CHECKPOINT_NATIVE_UNFIT
                    : g_str_equal(kind, "dead") ? VIR_CHECKPOINT_NATIVE_REFUSED
                                                : VIR_CHECKPOINT_NATIVE_STARTED);
    g_assert_true(qemu.job == (answer == VIR_CHECKPOINT_NATIVE_STARTED));
    g_assert_true((why == NULL) == qemu.job);
    /* What cannot work is not even tried. */
    g_assert_cmpuint(qemu.commands, ==, state == 0 && fits ? 1 : 0);
}

static void
testRefusals(void)
{
    static const gchar *const kinds[] = {"modes", "dead", "v2", "v4"};
    guint i;
    guint state;

    for (i = 0; i < G_N_ELEMENTS(kinds); i++) {
        for (state = 0; state < 5; state++) {
            testOne(kinds[i], state, "qcow2", CLUSTER);
            testOne(kinds[i], state, "qcow2", CLUSTER / 2);
            testOne(kinds[i], state, "qcow2", CLUSTER * 2);
            testOne(kinds[i], state, "raw", 0);
            testOne(kinds[i], state, "file", 0);
            testOne(kinds[i], state, "nbd", 0);
        }
    }
}

static void
testGone(void)
{
    TestQemu qemu = {.kind = "modes",
                     .recording = TRUE,
                     .granularity = CLUSTER,
                     .driver = "qcow2",
                     .cluster = CLUSTER,
                     .closed = TRUE};
    g_autofree gchar *why = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(testStart(&qemu, &why, &error), ==, VIR_CHECKPOINT_NATIVE_FAILED);
    g_assert_nonnull(error);
    g_assert_null(why);
}

static void
testArguments(void)
{
    virCheckpointNativePlan plan = {
        .dialect = VIR_CHECKPOINT_NATIVE_MODES,
        .job = "j",
        .source = "s",
        .target = "t",
        .filter = "f",
        .bitmap = "w",
        .speedBytes = 7,
        .bufSize = 8,
        .synchronous = TRUE,
    };
    g_autoptr(virCheckpointJson) modes = virCheckpointNativeArguments(&plan);
    g_autofree gchar *text = virCheckpointJsonFormat(modes);
    g_autoptr(virCheckpointJson) working = NULL;

    g_assert_cmpstr(text, ==,
                    "{\"job-id\":\"j\",\"device\":\"s\",\"target\":\"t\",\"sync\":"
                    "\"bitmap\",\"bitmap\":\"w\",\"bitmap-mode\":\"always\","
                    "\"filter-node-name\":\"f\",\"copy-mode\":\"write-blocking\","
                    "\"auto-dismiss\":false,\"speed\":7,\"buf-size\":8}");
    plan.dialect = VIR_CHECKPOINT_NATIVE_WORKING;
    plan.speedBytes = plan.bufSize = 0;
    plan.synchronous = FALSE;
    working = virCheckpointNativeArguments(&plan);
    g_free(text);
    text = virCheckpointJsonFormat(working);
    g_assert_cmpstr(text, ==,
                    "{\"job-id\":\"j\",\"device\":\"s\",\"target\":\"t\",\"sync\":"
                    "\"full\",\"bitmap\":\"w\",\"filter-node-name\":\"f\","
                    "\"auto-dismiss\":false}");
}

static gchar *
testVersion(gpointer data, const gchar *command, GError **error G_GNUC_UNUSED)
{
    g_assert_nonnull(strstr(command, "query-version"));
    return g_strdup_printf("{\"return\":{\"package\":\"%s\"}}", (const gchar *)data);
}

static gchar *
testIdentity(const gchar *emulator, const gchar *package)
{
    static const virCheckpointMonitorOps ops = {.run = testVersion};
    g_autoptr(virCheckpointMonitor) monitor =
        virCheckpointMonitorNew(&ops, (gpointer)package, "test");
    g_autofree gchar *xml = g_strdup_printf(
        "<domain><devices><emulator>%s</emulator></devices></domain>", emulator);

    return virCheckpointNativeIdentity(monitor, xml);
}

/* The same text only of the same file with the same version. */
static void
testWhich(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree gchar *folder = g_dir_make_tmp("nativetest-XXXXXX", &error);
    g_autofree gchar *path = g_build_filename(folder, "qemu", NULL);
    g_autofree gchar *first = NULL;
    g_autofree gchar *again = NULL;
    g_autofree gchar *other = NULL;
    g_autofree gchar *replaced = NULL;
    g_autofree gchar *gone = NULL;

    g_assert_no_error(error);
    g_file_set_contents(path, "a", -1, &error);
    g_assert_no_error(error);
    first = testIdentity(path, "7.2");
    again = testIdentity(path, "7.2");
    other = testIdentity(path, "8.0");
    g_file_set_contents(path, "ab", -1, &error); /* another file in its place */
    g_assert_no_error(error);
    replaced = testIdentity(path, "7.2");
    g_unlink(path);
    gone = testIdentity(path, "7.2");
    g_rmdir(folder);
    g_assert_nonnull(first);
    g_assert_cmpstr(first, ==, again);
    g_assert_cmpstr(first, !=, other);
    g_assert_cmpstr(first, !=, replaced);
    g_assert_null(gone);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/native/dialects-are-told-apart-by-members", testDialects);
    g_test_add_func("/native/arguments-of-both-dialects", testArguments);
    g_test_add_func("/native/what-is-refused-has-not-happened", testRefusals);
    g_test_add_func("/native/which-qemu-it-is", testWhich);
    g_test_add_func("/native/a-peer-that-goes-away-is-no-refusal", testGone);
    return g_test_run();
}
