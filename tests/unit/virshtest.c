/*
 * virshtest.c: command lines, options and URIs mean what they mean to stock virsh
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "libvirt-checkpoint.h"
#include "virsh_args.h"
#include "virsh_daemon.h"
#include "virsh_job.h"
#include "virsh_options.h"
#include "virsh_plan.h"
#include "virsh_stock.h"
#include "virsh_uri.h"

#define C(name) VIR_CHECKPOINT_VIRSH_COMMAND_##name

/* Words of a test's command line, separated by '|' because words have blanks. */
static gchar **
testWords(const gchar *line)
{
    return g_strsplit(line, "|", -1);
}

static void
testParse(gchar **words, virCheckpointVirshArgs *args)
{
    virCheckpointVirshArgsParse((int)g_strv_length(words), words, args);
}

static void
testArgsClassify(void)
{
    static const struct {
        const gchar *line;
        virCheckpointVirshCommand command;
    } cases[] = {
        {"virsh", C(STOCK)},
        {"virsh|-q|-c|qemu:///system", C(STOCK)},
        {"virsh|list", C(STOCK)},
        {"virsh|list|--all", C(STOCK)},
        {"virsh|-h", C(AS_IS)},
        {"virsh|--version=long", C(AS_IS)},
        {"virsh|--nosuch|blockcopy|a|b|--bitmap|c", C(AS_IS)},
        {"virsh|-k|x|blockcopy|a|b|--bitmap|c", C(AS_IS)},
        {"virsh|-e|abc|blockcopy|a|b|--bitmap|c", C(AS_IS)},
        {"virsh|-c", C(AS_IS)},
        {"virsh|uri", C(AS_IS)},
        {"virsh|echo|blockcopy|--bitmap", C(AS_IS)},
        {"virsh|help|list", C(AS_IS)},
        {"virsh|list|--help", C(AS_IS)},
        {"virsh|checkpoint-list|--help", C(AS_IS)},
        {"virsh|checkpoint-list|demo", C(NEEDED)},
        {"virsh|-r|checkpoint-dumpxml|demo|c1", C(NEEDED)},
        {"virsh|checkpoint-list demo", C(NEEDED)},
        {"virsh|list; checkpoint-list demo; echo a", C(NEEDED)},
        {"virsh|echo 'checkpoint-list demo'", C(AS_IS)},
        {"virsh|blockcopy|demo|vda|/x", C(STOCK)},
        {"virsh|blockcopy|demo|vda|--nosuch", C(STOCK)},
        {"virsh|blockcopy|demo|vda|--dest|--bitmap", C(STOCK)},
        {"virsh|blockcopy|demo|vda|/x|--|--bitmap", C(STOCK)},
        {"virsh|blockcopy|demo|vda|--bitmap|c1", C(BLOCKCOPY)},
        {"virsh|blockcopy|demo|vda|--bitmap=c1", C(BLOCKCOPY)},
        {"virsh|blockcopy|demo|vda|--checkpoint|c1", C(BLOCKCOPY)},
        {"virsh|blockcopy|--bitmap", C(BLOCKCOPY)},
        {"virsh|blockcopy|--nosuch|--bitmap|c1", C(BLOCKCOPY)},
        {"virsh|--|blockcopy|demo|vda|--bitmap|c1", C(BLOCKCOPY)},
        {"virsh|blockcopy demo vda --bitmap c1", C(BATCH)},
        {"virsh|list; blockcopy demo vda --bitmap c1; list", C(BATCH)},
        {"virsh|echo a\nblockcopy demo vda --checkpoint=c1", C(BATCH)},
        {"virsh|echo 'a; blockcopy demo vda --bitmap c1'", C(AS_IS)},
        {"virsh|list # ; blockcopy demo vda --bitmap c1", C(STOCK)},
        {"virsh|blockcopy demo vda /x; list", C(STOCK)},
        {"virsh|checkpoint-check|demo", C(CHECK)},
        {"virsh|checkpoint-check|--nosuch", C(CHECK)},
        {"virsh|checkpoint-check|demo|--help", C(CHECK_HELP)},
        {"virsh|help|checkpoint-check", C(CHECK_HELP)},
        {"virsh|help checkpoint-check", C(CHECK_HELP)},
        {"virsh|checkpoint-check demo", C(BATCH)},
        {"virsh|help|blockcopy", C(HELP)},
        {"virsh|help|--command|blockcopy", C(HELP)},
        {"virsh|help|--command=blockcopy", C(HELP)},
        {"virsh|help blockcopy", C(HELP)},
        {"virsh|help blockcopy; list", C(STOCK)},
        {"virsh|blockcopy|--help", C(HELP)},
        {"virsh|blockcopy|demo|--bitmap|c1|--help", C(HELP)},
        {"virsh|blockcopy|--nosuch|--help", C(STOCK)},
        {"virsh|", C(AS_IS)},
        {"virsh|echo 'not closed", C(AS_IS)},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(GStrv) words = testWords(cases[i].line);
        virCheckpointVirshArgs args;

        testParse(words, &args);
        if (virCheckpointVirshArgsClassify(&args) != cases[i].command)
            g_error("%s: %u", cases[i].line, virCheckpointVirshArgsClassify(&args));
    }
}

static void
testArgsOptions(void)
{
    g_auto(GStrv) words =
        testWords("virsh|-qrt|-k7|--keepalive-count=3|-l|/log|-d|0|-e|^]|"
                  "--connect=a:///b|list|-q|--all");
    virCheckpointVirshArgs args;

    testParse(words, &args);
    g_assert_false(args.asIs);
    g_assert_true(args.quiet && args.readonly && args.timing);
    g_assert_cmpint(args.keepaliveInterval, ==, 7);
    g_assert_cmpint(args.keepaliveCount, ==, 3);
    g_assert_cmpstr(args.logFile, ==, "/log");
    g_assert_cmpstr(virCheckpointVirshArgsUri(&args), ==, "a:///b");
    g_assert_cmpstr(words[args.first], ==, "list");
}

/* Only the value of the last -c changes, however it was written. */
static void
testArgsUri(void)
{
    static const struct {
        const gchar *line;
        const gchar *given;
        const gchar *want;
    } cases[] = {
        {"virsh|-c|a|list", "a", "virsh|-c|NEW|list"},
        {"virsh|-ca|list", "a", "virsh|-cNEW|list"},
        {"virsh|-qca|list", "a", "virsh|-qcNEW|list"},
        {"virsh|--connect=a|list|-c|b", "a", "virsh|--connect=NEW|list|-c|b"},
        {"virsh|--conn|a|list", "a", "virsh|--conn|NEW|list"},
        {"virsh|-c|a|-q|-c|b|list", "b", "virsh|-c|a|-q|-c|NEW|list"},
        {"virsh|-c||list", "", "virsh|-c|NEW|list"},
        {"virsh|list|-c|b", NULL, "virsh|list|-c|b"},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(GStrv) words = testWords(cases[i].line);
        g_auto(GStrv) got = NULL;
        g_autofree gchar *joined = NULL;
        virCheckpointVirshArgs args;

        testParse(words, &args);
        g_assert_cmpstr(virCheckpointVirshArgsUri(&args), ==, cases[i].given);
        got = virCheckpointVirshArgsWithUri(&args, "NEW");
        joined = g_strjoinv("|", got);
        g_assert_cmpstr(joined, ==, cases[i].want);
    }
}

static void
testArgsSplit(void)
{
    g_autoptr(GPtrArray) commands = NULL;
    g_autofree gchar *first = NULL;
    g_autofree gchar *second = NULL;

    commands = virCheckpointVirshArgsSplit(
        " a\\;b \"c \\\" d\" 'e \\ f'g '' ; ;\n# x ; y\nh#i # j");
    g_assert_cmpuint(commands->len, ==, 2);
    first = g_strjoinv("|", g_ptr_array_index(commands, 0));
    second = g_strjoinv("|", g_ptr_array_index(commands, 1));
    g_assert_cmpstr(first, ==, "a;b|c \" d|e \\ fg|");
    g_assert_cmpstr(second, ==, "h#i");
    g_assert_null(virCheckpointVirshArgsSplit("a \"b"));
}

static virCheckpointVirshOptions *
testOptions(const gchar *line)
{
    g_auto(GStrv) words = testWords(line);

    return virCheckpointVirshOptionsParse((const gchar *const *)words);
}

static void
testOptionsMessages(void)
{
    static const struct {
        const gchar *line;
        const gchar *message;
    } cases[] = {
        {"demo|vda|--bitmap|c", NULL},
        {"demo|vda|/x|5|6|/xml|raw|7|8|--bitmap|c", NULL},
        {"demo|vda|/x|5|6|/xml|raw|7|8|9|--bitmap|c", "unexpected data '9'"},
        {"--bitmap|c", "command 'blockcopy' requires <domain> option\n"
                       "command 'blockcopy' requires <path> option"},
        {"demo|--bitmap|c", "command 'blockcopy' requires <path> option"},
        {"demo|vda|--bitmap", "expected syntax: --bitmap <string>"},
        {"demo|vda|--bandwidth", "expected syntax: --bandwidth <number>"},
        {"demo|vda|--bitmap=c|--bitmap|d", "option --bitmap already seen"},
        {"demo|vda|--raw|--format|x", "option --format already seen"},
        {"demo|vda|--wait=1", "invalid '=' after option --wait"},
        {"demo|vda|--wai", "command 'blockcopy' doesn't support option --wai"},
        {"--path|vda|demo|-x", NULL},
        {"demo|vda|--|--x", NULL},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(virCheckpointVirshOptions) options = testOptions(cases[i].line);

        g_assert_cmpstr(options->message, ==, cases[i].message);
    }
}

static void
testOptionsHelp(void)
{
    static const gchar stock[] = "  NAME\n    blockcopy - x\n\n  SYNOPSIS\n"
                                 "    blockcopy <domain> [--xml <string>]\n\n"
                                 "  OPTIONS\n    --xml <string>   file\n\n\n";
    g_autofree gchar *once = virCheckpointVirshOptionsMergeHelp(stock);
    g_autofree gchar *twice = virCheckpointVirshOptionsMergeHelp(once);

    g_assert_cmpstr(
        once, ==,
        "  NAME\n    blockcopy - x\n\n  SYNOPSIS\n    blockcopy <domain> [--xml "
        "<string>]"
        " [--bitmap <string>] [--checkpoint <string>] [--verify] "
        "[--end-checkpoints]\n\n  OPTIONS\n"
        "    --xml <string>   file\n"
        "    --bitmap <string>  copy only what changed since this checkpoint; needs "
        "--reuse-external\n"
        "    --checkpoint <string>  create this checkpoint, of the moment the copy "
        "stands "
        "for\n"
        "    --verify         compare target and disk before --finish succeeds\n"
        "    --end-checkpoints  --pivot may move to a target without bitmaps\n\n\n");
    g_assert_cmpstr(twice, ==, once);
}

static void
testPlanRefuses(void)
{
    static const struct {
        const gchar *line;
        const gchar *message;
    } cases[] = {
        {"", "need either --dest or --xml"},
        {"--dest|x|--xml|y", "Options --dest and --xml are mutually exclusive"},
        {"--xml|y|--raw", "Options --format and --xml are mutually exclusive"},
        {"--xml|y|--blockdev", "Options --blockdev and --xml are mutually exclusive"},
        {"--dest|x|--pivot|--finish",
         "Options --pivot and --finish are mutually exclusive"},
        {"--dest|x|--async",
         "--async requires at least one of --timeout, --wait, --pivot, "
         "or --finish"},
        {"--dest|x|--verbose", "--verbose requires at least one of --timeout, --wait, "
                               "--pivot, or --finish"},
        {"--dest|", "Failed to get option 'dest': Option argument is empty"},
        {"--dest|x|--checkpoint|",
         "Failed to get option 'checkpoint': Option argument is "
         "empty"},
        {"--dest|x|--timeout|0",
         "Numeric value '0' for <timeout> option is malformed or out of range"},
        {"--dest|x|--granularity|5000000000",
         "Numeric value '5000000000' for <granularity> option is malformed or out of "
         "range"},
        {"--dest|x|--buf-size|-1",
         "Numeric value '-1' for <buf-size> option is malformed or out of range"},
        {"--dest|x|--bandwidth|x", "Scaled numeric value 'x' for <--bandwidth> option "
                                   "is malformed or out of range"},
        {"--dest|x|--bandwidth|2.5", "Scaled numeric value '2.5' for <--bandwidth> "
                                     "option is malformed or out of range\n"
                                     "invalid argument: unknown suffix '.5'"},
        {"--dest|x|--bandwidth|-5", "bandwidth must be less than 17592186044415"},
        {"--dest|x|--raw|--pivot",
         "--pivot needs a target that keeps the checkpoints: its "
         "format is 'raw', not 'qcow2'; --end-checkpoints lets them end there"},
    };
    g_autoptr(virCheckpointVirshOptions) incremental = NULL;
    g_autoptr(virCheckpointVirshOptions) verified = NULL;
    g_autoptr(GError) error = NULL;
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree gchar *line =
            g_strconcat("--domain|demo|--path|vda", "|",
                        *cases[i].line ? cases[i].line : "--shallow", NULL);
        g_autoptr(virCheckpointVirshOptions) options = testOptions(line);
        g_autoptr(GError) refused = NULL;

        g_assert_cmpstr(options->message, ==, NULL);
        g_assert_null(virCheckpointVirshPlanNew(options, &refused));
        g_assert_cmpstr(refused->message, ==, cases[i].message);
    }
    incremental = testOptions("demo|vda|x|--bitmap|c");
    g_assert_null(virCheckpointVirshPlanNew(incremental, &error));
    g_assert_cmpstr(error->message, ==,
                    "Option --reuse-external is required by option --bitmap");
    g_clear_error(&error);
    verified = testOptions("demo|vda|x|--checkpoint|c|--verify|--wait");
    g_assert_null(virCheckpointVirshPlanNew(verified, &error));
    g_assert_cmpstr(error->message, ==,
                    "Option --finish is required by option --verify");
}

static void
testPlanBandwidth(void)
{
    static const struct {
        const gchar *line;
        guint64 bytes; /* 0: the parameter is left out */
    } cases[] = {
        {"2", 2097152},
        {" 2", 2097152},
        {"2|--bytes", 2},
        {"1k|--bytes", 1024},
        {"1kB|--bytes", 1000},
        {"1KiB|--bytes", 1024},
        {"1M", 1048576},
        {"3MiB|--bytes", 3145728},
        {"1MB", 0},
        {"1b", 0},
        {"0", 0},
        {"17592186044415", 18446744073708503040u},
        {"-1|--bytes", G_MAXUINT64},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree gchar *line =
            g_strconcat("demo|vda|x|--bandwidth|", cases[i].line, NULL);
        g_autoptr(virCheckpointVirshOptions) options = testOptions(line);
        g_autoptr(virCheckpointVirshPlan) plan = NULL;
        unsigned long long bytes = 0;

        plan = virCheckpointVirshPlanNew(options, NULL);
        g_assert_nonnull(plan);
        virTypedParamsGetULLong(plan->params, plan->nparams,
                                VIR_DOMAIN_BLOCK_COPY_BANDWIDTH, &bytes);
        g_assert_cmpuint(bytes, ==, cases[i].bytes);
    }
}

static void
testPlanCall(void)
{
    g_autoptr(virCheckpointVirshOptions) options = testOptions(
        "demo|vda|--dest=/a'b|--blockdev|--format|qcow2|--bitmap|c1|--checkpoint|c2|"
        "--reuse-external|--shallow|--transient-job|--synchronous-writes|--finish|--"
        "verify|--"
        "verbose|"
        "--async|--timeout|3|--granularity|65536|--buf-size|9");
    g_autoptr(virCheckpointVirshPlan) plan = virCheckpointVirshPlanNew(options, NULL);
    const char *text = NULL;
    int finish = 0;
    unsigned int granularity = 0;
    unsigned long long bufSize = 0;

    g_assert_nonnull(plan);
    g_assert_cmpstr(plan->xml, ==,
                    "<disk type='block'>\n  <source dev='/a&apos;b'/>\n"
                    "  <driver type='qcow2'/>\n</disk>\n");
    g_assert_cmpuint(plan->flags, ==,
                     VIR_DOMAIN_BLOCK_COPY_SHALLOW | VIR_DOMAIN_BLOCK_COPY_REUSE_EXT |
                         VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB |
                         VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES);
    g_assert_cmpuint(plan->jobFlags, ==,
                     VIR_CHECKPOINT_VIRSH_JOB_WAIT | VIR_CHECKPOINT_VIRSH_JOB_VERBOSE |
                         VIR_CHECKPOINT_VIRSH_JOB_ASYNC |
                         VIR_CHECKPOINT_VIRSH_JOB_FINISH);
    g_assert_cmpuint(plan->timeoutMs, ==, 3000);
    g_assert_cmpint(plan->nparams, ==, 6);
    g_assert_cmpint(virTypedParamsGetString(plan->params, plan->nparams,
                                            VIR_CHECKPOINT_BLOCK_COPY_BITMAP, &text),
                    ==, 1);
    g_assert_cmpstr(text, ==, "c1");
    g_assert_cmpint(virTypedParamsGetString(plan->params, plan->nparams,
                                            VIR_CHECKPOINT_BLOCK_COPY_CHECKPOINT,
                                            &text),
                    ==, 1);
    g_assert_cmpstr(text, ==, "c2");
    virTypedParamsGetBoolean(plan->params, plan->nparams,
                             VIR_CHECKPOINT_BLOCK_COPY_FINISH, &finish);
    virTypedParamsGetUInt(plan->params, plan->nparams,
                          VIR_DOMAIN_BLOCK_COPY_GRANULARITY, &granularity);
    virTypedParamsGetULLong(plan->params, plan->nparams, VIR_DOMAIN_BLOCK_COPY_BUF_SIZE,
                            &bufSize);
    g_assert_cmpint(finish, ==, 1);
    g_assert_cmpuint(granularity, ==, 65536);
    g_assert_cmpuint(bufSize, ==, 9);
}

static void
testPlanXml(void)
{
    g_autoptr(virCheckpointVirshOptions) options =
        testOptions("demo|vda|--xml|f|--checkpoint|c|--pivot");
    g_autoptr(virCheckpointVirshPlan) plan = virCheckpointVirshPlanNew(options, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_null(plan->xml);
    g_assert_true(virCheckpointVirshPlanSetXml(plan, "not xml", NULL));
    g_assert_true(virCheckpointVirshPlanSetXml(
        plan, "<disk><driver name='qemu' type='qcow2'/></disk>", NULL));
    g_assert_false(virCheckpointVirshPlanSetXml(
        plan, "<disk><source file='x'/><driver type='raw'/></disk>", &error));
    g_assert_true(g_str_has_prefix(error->message, "--pivot needs a target"));
    g_assert_cmpstr(plan->xml, ==, "<disk><driver name='qemu' type='qcow2'/></disk>");
}

static void
testUriDefault(void)
{
    static const gchar config[] =
        "#uri_default = \"no:///no\"\n"
        "uri_aliases = [\n  # \"far=no:///no\",\n"
        "  \"near=qemu:///session\", 'far=qemu+ssh://far/system',\n]\n"
        "  uri_default = 'near'\n";
    static const struct {
        const gchar *given;
        const gchar *virshEnv;
        const gchar *libvirtEnv;
        gboolean config;
        gboolean root;
        const gchar *want;
    } cases[] = {
        {"a", "b", "c", TRUE, TRUE, "a"},
        {NULL, "b", "c", TRUE, TRUE, "b"},
        {NULL, NULL, "c", TRUE, TRUE, "c"},
        {"", "b", "c", TRUE, TRUE, "c"},
        {NULL, "", "", TRUE, TRUE, "qemu:///session"},
        {NULL, NULL, NULL, FALSE, TRUE, "qemu:///system"},
        {NULL, NULL, NULL, FALSE, FALSE, "qemu:///session"},
        {"far", NULL, NULL, TRUE, FALSE, "qemu+ssh://far/system"},
        {"fa", NULL, NULL, TRUE, FALSE, "fa"},
        {NULL, NULL, "far", TRUE, FALSE, "qemu+ssh://far/system"},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree gchar *uri = virCheckpointVirshUriDefault(
            cases[i].given, cases[i].virshEnv, cases[i].libvirtEnv,
            cases[i].config ? config : NULL, cases[i].root);

        g_assert_cmpstr(uri, ==, cases[i].want);
    }
}

static void
testUriRoute(void)
{
    static const struct {
        const gchar *uri;
        gboolean root;
        gboolean readonly;
        const gchar *socketPath;
        const gchar *want; /* NULL: left alone */
    } cases[] = {
#define SYSTEM "/run/libvirt/virtcheckpointd-sock"
        {"qemu:///system", TRUE, FALSE, NULL, "qemu:///system?socket=" SYSTEM},
        {"qemu:///system", FALSE, TRUE, NULL, "qemu:///system?socket=" SYSTEM "-ro"},
        {"qemu+unix:///system", TRUE, FALSE, NULL,
         "qemu+unix:///system?socket=" SYSTEM},
        {"qemu:/system", TRUE, FALSE, NULL, "qemu:/system?socket=" SYSTEM},
        {"qemu:///session", FALSE, FALSE, NULL,
         "qemu:///session?socket=/rt/libvirt/virtcheckpointd-sock"},
        {"qemu:///session", TRUE, FALSE, NULL, "qemu:///session?socket=" SYSTEM},
        {"qemu:///session", FALSE, TRUE, "/a b&c",
         "qemu:///session?socket=/a%20b%26c-ro"},
        {"qemu:///system?", TRUE, FALSE, NULL, "qemu:///system?socket=" SYSTEM},
        {"qemu:///system?x=1#f", TRUE, FALSE, NULL,
         "qemu:///system?x=1&socket=" SYSTEM "#f"},
        {"qemu+ssh://u@h:22/system", FALSE, FALSE, "/mine",
         "qemu+ssh://u@h:22/system?socket=" SYSTEM},
        {"qemu+ssh://h/system?keyfile=/k&no_tty=1", FALSE, TRUE, NULL,
         "qemu+ssh://h/system?keyfile=/k&no_tty=1&socket=" SYSTEM "-ro"},
        {"qemu+libssh2://h/system", FALSE, FALSE, NULL,
         "qemu+libssh2://h/system?socket=" SYSTEM},
        {"qemu+ssh://h/session", FALSE, FALSE, NULL, NULL},
        {"qemu+ssh://h/system?proxy=native", FALSE, FALSE, NULL, NULL},
        {"qemu+ssh://h/system?proxy=netcat", FALSE, FALSE, NULL,
         "qemu+ssh://h/system?proxy=netcat&socket=" SYSTEM},
        {"qemu:///system?socket=/s", TRUE, FALSE, NULL, NULL},
        {"qemu:///system?x=1;SOCKET=/s", TRUE, FALSE, NULL, NULL},
        {"qemu:///system?notsocket=1", TRUE, FALSE, NULL,
         "qemu:///system?notsocket=1&socket=" SYSTEM},
        {"qemu://h/system", TRUE, FALSE, NULL, NULL},
        {"qemu+tls://h/system", TRUE, FALSE, NULL, NULL},
        {"qemu+tcp://h/system", TRUE, FALSE, NULL, NULL},
        {"qemu:///embed?root=/r", TRUE, FALSE, NULL, NULL},
        {"test:///default", TRUE, FALSE, NULL, NULL},
        {"xen:///system", TRUE, FALSE, NULL, NULL},
        {"lxc+ssh://h/system", TRUE, FALSE, NULL, NULL},
        {"", TRUE, FALSE, NULL, NULL},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        const virCheckpointVirshHost host = {cases[i].root, cases[i].readonly,
                                             cases[i].socketPath, "/rt"};
        g_autoptr(virCheckpointVirshRoute) route = NULL;

        route = virCheckpointVirshRouteNew(cases[i].uri, &host);
        g_assert_cmpstr(route->uri, ==, cases[i].want ? cases[i].want : cases[i].uri);
        g_assert_true((route->kind == VIR_CHECKPOINT_VIRSH_ROUTE_NONE) ==
                      (cases[i].want == NULL));
        g_assert_true((route->answers != NULL) ==
                      (route->kind == VIR_CHECKPOINT_VIRSH_ROUTE_LOCAL));
    }
}

/* Ourselves under three names, then the one to find, then a later one. */
static void
testStockFind(void)
{
    g_autofree gchar *top = g_dir_make_tmp("virsh-XXXXXX", NULL);
    g_autofree gchar *path = NULL;
    g_autofree gchar *self = g_build_filename(top, "a", "virsh", NULL);
    g_autofree gchar *stock = g_build_filename(top, "d", "virsh", NULL);
    g_autofree gchar *later = g_build_filename(top, "e", "virsh", NULL);
    g_autofree gchar *found = NULL;
    g_autofree gchar *other = NULL;
    g_autoptr(GError) error = NULL;
    const gchar *folder;
    GString *joined = g_string_new("relative:");

    for (folder = "abcdef"; *folder; folder++) {
        g_autofree gchar *name = g_strdup_printf("%s/%c", top, *folder);
        g_autofree gchar *file = g_build_filename(name, "virsh", NULL);

        g_assert_cmpint(g_mkdir(name, 0700), ==, 0);
        g_string_append_printf(joined, "%s:", name);
        if (*folder == 'b')
            g_assert_cmpint(symlink(self, file), ==, 0);
        else if (*folder == 'c')
            g_assert_cmpint(link(self, file), ==, 0);
        else if (*folder != 'f')
            g_assert_true(g_file_set_contents_full(
                file, "#!/bin/sh\n", -1, G_FILE_SET_CONTENTS_NONE, 0700, NULL));
    }
    path = g_string_free(joined, FALSE);
    found = virCheckpointVirshStockFind(path, self, NULL, NULL);
    g_assert_cmpstr(found, ==, stock);
    other = virCheckpointVirshStockFind(path, self, stock, NULL);
    g_assert_cmpstr(other, ==, later);
    g_assert_null(virCheckpointVirshStockFind("/nonexistent", self, NULL, &error));
    g_assert_nonnull(error);

    for (folder = "abcdef"; *folder; folder++) {
        g_autofree gchar *name = g_strdup_printf("%s/%c", top, *folder);
        g_autofree gchar *file = g_build_filename(name, "virsh", NULL);

        g_unlink(file);
        g_rmdir(name);
    }
    g_rmdir(top);
}

static void
testDaemonFind(void)
{
    g_autofree gchar *env = NULL;
    g_autofree gchar *none = NULL;
    g_autoptr(GError) error = NULL;

    env =
        virCheckpointVirshDaemonFind("/my/daemon", "/x/tools/virsh/virsh", "/s", NULL);
    g_assert_cmpstr(env, ==, "/my/daemon");
    g_setenv("PATH", "/nonexistent", TRUE);
    none = virCheckpointVirshDaemonFind("", "/x/tools/virsh/virsh", "/nonexistent",
                                        &error);
    g_assert_null(none);
    g_assert_cmpstr(error->message, ==, "no virtcheckpointd in '/nonexistent' or PATH");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virsh/args/each-command-goes-where-it-belongs", testArgsClassify);
    g_test_add_func("/virsh/args/global-options-are-read", testArgsOptions);
    g_test_add_func("/virsh/args/only-the-uri-changes", testArgsUri);
    g_test_add_func("/virsh/args/command-strings-are-split", testArgsSplit);
    g_test_add_func("/virsh/options/messages-are-stocks", testOptionsMessages);
    g_test_add_func("/virsh/options/help-has-ours-once", testOptionsHelp);
    g_test_add_func("/virsh/plan/refuses-as-stock-does", testPlanRefuses);
    g_test_add_func("/virsh/plan/bandwidth-has-stocks-units", testPlanBandwidth);
    g_test_add_func("/virsh/plan/all-options-reach-the-call", testPlanCall);
    g_test_add_func("/virsh/plan/no-pivot-onto-what-loses-bitmaps", testPlanXml);
    g_test_add_func("/virsh/uri/default-is-what-stock-would-take", testUriDefault);
    g_test_add_func("/virsh/uri/qemu-goes-through-the-gateway", testUriRoute);
    g_test_add_func("/virsh/stock/is-the-first-that-is-not-us", testStockFind);
    g_test_add_func("/virsh/daemon/is-looked-for-in-order", testDaemonFind);
    return g_test_run();
}
