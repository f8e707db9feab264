/*
 * virshchecktest.c: checkpoint-check: its words, its screen, its exit status
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "config.h"

#include <string.h>

#include "virsh_check.h"

static void
testMessages(void)
{
    static const struct {
        const gchar *line; /* words separated by '|' */
        const gchar *message;
    } cases[] = {
        {"vm", NULL},
        {"--domain|vm", NULL},
        {"vm|--repair", NULL},
        {"vm|--heal|--disk|vda|--against=r.xml", NULL},
        {"vm|--heal|--disk|vda|--against|r.xml|--checkpoint|c1|--verbose", NULL},
        {"--|--vm", NULL},
        {"--json|vm", NULL},
        {"--json", "command 'checkpoint-check' requires <domain> option"},
        {"vm|x", "unexpected data 'x'"},
        {"vm|--domain|x", "option --domain already seen"},
        {"vm|--repair|--repair", "option --repair already seen"},
        {"vm|--repair=1", "invalid '=' after option --repair"},
        {"vm|--heal|--disk", "expected syntax: --disk <string>"},
        {"vm|--nosuch", "command 'checkpoint-check' doesn't support option --nosuch"},
        {"vm|--repair|--heal", "Options --repair and --heal are mutually exclusive"},
        {"vm|--heal", "Option --disk is required by option --heal"},
        {"vm|--heal|--disk|vda", "Option --against is required by option --heal"},
        {"vm|--disk|vda", "Option --heal is required by option --disk"},
        {"vm|--checkpoint|c", "Option --heal is required by option --checkpoint"},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(GStrv) words = g_strsplit(cases[i].line, "|", -1);
        g_autoptr(virCheckpointVirshCheck) check =
            virCheckpointVirshCheckParse((const gchar *const *)words);

        g_assert_cmpstr(check->message, ==, cases[i].message);
        g_assert_false(check->help);
    }
}

static void
testHelp(void)
{
    static const gchar *const words[] = {"vm", "--help", NULL};
    g_autoptr(virCheckpointVirshCheck) check = virCheckpointVirshCheckParse(words);
    g_autofree gchar *text = virCheckpointVirshCheckHelp();

    g_assert_true(check->help);
    g_assert_nonnull(strstr(text, "    checkpoint-check <domain> [--repair] [--heal] "
                                  "[--disk <string>] [--against <string>]"));
    g_assert_nonnull(strstr(text, "\n    [--domain] <string> domain name, id or uuid"));
}

static const gchar testReport[] =
    "{'domain':'vm','running':true,'health':'wrong','store':{'checkpoints':2},"
    "'problems':[{'disk':'vda','text':'lost','command':'virsh a'},"
    "{'disk':'vdb','text':'lost too','command':'virsh a'},"
    "{'text':'stray','command':'virsh b'},{'text':'no way'}],"
    "'disks':[{'disk':'vda','health':'wrong','image':'/i','size':1572864,"
    "'checkpoints':[{'checkpoint':'c2','health':'healthy','own':'healthy','since':512,"
    "'bitmaps':['b'],'sidecars':[]},"
    "{'checkpoint':'c1','health':'wrong','own':'wrong','since':65536,'bitmaps':[],"
    "'sidecars':[{'file':'f','bytes':1024,'good':true}]}],"
    "'bitmaps':[{'name':'b','changed':512,'recording':true}]}],"
    "'copies':[{'disk':'vdb','state':'bulk'}],'libvirt':['s1','s2'],"
    "'repaired':['this','that']}";

static const gchar testScreen[] =
    "Domain vm (running), 2 checkpoints: wrong\n"
    "\n"
    "Disk vda: wrong, 1.5 MiB in /i\n"
    " Checkpoint             Health        Changed      In the image         In the "
    "store\n"
    " c2                     healthy       512 B        records, 512 B       -\n"
    " c1                     inconsistent  64.0 KiB     -                    1 file, "
    "1.0 KiB\n"
    "\n"
    "Copies under way: vdb bulk\n"
    "\n"
    "Checkpoints of libvirt's own: s1, s2\n"
    "\n"
    "Repaired:\n"
    " this\n"
    " that\n"
    "\n"
    "Problems:\n"
    " vda: lost\n"
    " vdb: lost too\n"
    "   mend with: virsh a\n"
    " stray\n"
    "   mend with: virsh b\n"
    " no way\n";

static virCheckpointJson *
testJson(const gchar *text)
{
    g_autofree gchar *quoted = g_strdelimit(g_strdup(text), "'", '"');
    virCheckpointJson *json = virCheckpointJsonParse(quoted, -1, NULL);

    g_assert_nonnull(json);
    return json;
}

static void
testShow(void)
{
    g_autoptr(virCheckpointJson) report = testJson(testReport);
    g_autofree gchar *screen = virCheckpointVirshCheckShow(report);

    g_assert_cmpstr(screen, ==, testScreen);
}

static void
testMany(void)
{
    g_autoptr(GString) text = g_string_new("{'health':'healthy','disks':[{'disk':'vda',"
                                           "'health':'wrong','checkpoints':[");
    g_autoptr(virCheckpointJson) report = NULL;
    g_autofree gchar *screen = NULL;
    gint i;

    for (i = 1000; i > 0; i--)
        g_string_append_printf(text, "%s{'checkpoint':'c%d','health':'%s','own':'%s'}",
                               i == 1000 ? "" : ",", i, i > 500 ? "healthy" : "wrong",
                               i == 500 ? "wrong" : "healthy");
    g_string_append(text, "]}]}");
    report = testJson(text->str);
    screen = virCheckpointVirshCheckShow(report);
    g_assert_nonnull(strstr(screen, " c1000 "));
    g_assert_nonnull(strstr(screen, " c500 "));
    g_assert_nonnull(strstr(screen, " c1 "));
    g_assert_null(strstr(screen, " c999 "));
    g_assert_nonnull(strstr(screen, "\n and 997 more\n"));
}

static void
testStatus(void)
{
    static const struct {
        const gchar *report;
        int status;
    } cases[] = {
        {"{'health':'healthy'}", 0},
        {"{'health':'unknown'}", 1},
        {"{'health':'wrong'}", 2},
        {"{}", 1},
    };
    gsize i;

    for (i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(virCheckpointJson) report = testJson(cases[i].report);

        g_assert_cmpint(virCheckpointVirshCheckStatus(report), ==, cases[i].status);
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virshcheck/messages-are-stocks", testMessages);
    g_test_add_func("/virshcheck/help", testHelp);
    g_test_add_func("/virshcheck/one-screen", testShow);
    g_test_add_func("/virshcheck/a-thousand-are-one-screen", testMany);
    g_test_add_func("/virshcheck/exit-status", testStatus);
    return g_test_run();
}
